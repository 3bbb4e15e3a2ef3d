use ptx_emulator::parse;

use super::*;

const PTX: &str = r#".version 8.0
.target sm_80
.address_size 64
.func helper() {
  .reg .pred %p<2>;
  @%p1 exit;
  ret;
}
.entry other() {
  bar.sync 0;
}
.entry kernel() {
  .reg .pred %p<4>;
  .reg .b32 %r<9>;
  .reg .b64 %rd<9>;
  .loc 1 10 0
  bar.sync 1, 64;
  bar.arrive 2, 64;
  bar.warp.sync %r1;
  .loc 2 5 1, function_name $x, inlined_at 1 12 0
  cp.async.wait_group 1;
  cp.async.wait_all;
  cp.async.commit_group;
  cp.async.cg.shared.global.L2::cache_hint [%r1], [%rd1+16], 16, %r2, %rd2;
  cp.async.cg.shared.global.L2::cache_hint [%r1], [%rd1], 16, %rd2;
  .loc 1 20 0
  membar.gl;
  fence.proxy.async;
  ld.acquire.gpu.global.v2.u32 {%r1, %r2}, [%rd1];
  ld.volatile.shared.u32 %r1, [%r2];
  st.relaxed.sys.global.u32 [%rd1], %r1;
  atom.global.add.u32 %r1, [%rd1], 1;
  atom.shared.add.u32 %r1, [%r2], 1;
  red.release.global.add.u32 [%rd1], 1;
  setp.lt.u32 %p1, %r1, 4; setp.hs.and.u64 %p2, %rd1, %rd2, %p1;
  setp.lt.f32 %p1, %f1, %f2;
  selp.f32 %f1, 0f3F800000,
    %f2, %p1;
back:
  @!%p1 add.s32 %r1, %r1, 1;
  @%p1 bra back;
  @%p1 bra ahead;
  { call.uni helper; }
ahead:
  ret;
}
.file 1 "kernels/a.cu"
.file 2 "kernels/b.cuh"
"#;

fn listed(kernel: Option<&str>) -> Vec<(Kind, String)> {
    mutants(PTX, kernel).unwrap().into_iter().map(|mutant| (mutant.kind, mutant.after)).collect()
}

#[test]
fn every_kind_is_generated_and_no_other() {
    use Kind::*;
    let removed = String::new;
    let text = |text: &str| text.to_owned();
    let expected = vec![
        (NeverLeave, removed()),
        (RemoveBarrier, removed()),
        (NarrowBarrier, text("bar.warp.sync 0xffffffff;")),
        (RemoveBarrier, removed()),
        (RemoveWarpBarrier, removed()),
        (RemoveWait, removed()),
        (RaiseWait, text("cp.async.wait_group 2;")),
        (RemoveWait, removed()),
        (RemoveCommit, removed()),
        (FullSource, text("cp.async.cg.shared.global.L2::cache_hint [%r1], [%rd1+16], 16, %rd2;")),
        (RemoveFence, removed()),
        (NarrowFence, text("membar.cta;")),
        (RemoveFence, removed()),
        (Relax, text("ld.relaxed.gpu.global.v2.u32 {%r1, %r2}, [%rd1];")),
        (NarrowScope, text("ld.acquire.cta.global.v2.u32 {%r1, %r2}, [%rd1];")),
        (Weaken, text("ld.shared.u32 %r1, [%r2];")),
        (Weaken, text("st.global.u32 [%rd1], %r1;")),
        (NarrowScope, text("st.relaxed.cta.global.u32 [%rd1], %r1;")),
        (NarrowScope, text("atom.cta.global.add.u32 %r1, [%rd1], 1;")),
        (Relax, text("red.relaxed.global.add.u32 [%rd1], 1;")),
        (NarrowScope, text("red.release.cta.global.add.u32 [%rd1], 1;")),
        (ShiftComparison, text("setp.le.u32 %p1, %r1, 4;")),
        (ShiftComparison, text("setp.hi.and.u64 %p2, %rd1, %rd2, %p1;")),
        (SelectFirst, text("selp.f32 %f1, 0f3F800000, 0f3F800000, %p1;")),
        (SelectSecond, text("selp.f32 %f1, %f2, %f2, %p1;")),
        (RemoveGuard, text("add.s32 %r1, %r1, 1;")),
        (NeverLeave, removed()),
    ];
    assert_eq!(listed(Some("kernel")), expected);
    assert_eq!(listed(Some("helper")).len(), 1);
    let mutants = mutants(PTX, Some("kernel")).unwrap();
    let never_taken = mutants.iter().filter(|mutant| mutant.kind == NeverLeave);
    // The backward branch is not among them.
    assert_eq!(never_taken.map(|mutant| &*mutant.before).collect::<Vec<_>>(), ["@%p1 exit;", "@%p1 bra ahead;"]);
    // The other kernel's barrier can be removed or narrowed.
    assert_eq!(listed(None).len(), expected.len() + 2);
    assert!(listed(Some("absent")).is_empty());
}

#[test]
fn a_mutant_names_its_location_and_keeps_line_numbers() {
    let mutants = mutants(PTX, Some("kernel")).unwrap();
    let wait = mutants.iter().find(|mutant| mutant.kind == Kind::RaiseWait).unwrap();
    assert_eq!(
        wait.to_string(),
        "RaiseWait in kernel at kernels/b.cuh:5, called from kernels/a.cu:12 (PTX line 21): \
         `cp.async.wait_group 1;` → cp.async.wait_group 2;"
    );
    for mutant in &mutants {
        let text = mutant.apply(PTX);
        let module = parse::parse(&text).unwrap_or_else(|error| panic!("{mutant}: {error}"));
        assert_eq!(module.functions.len(), 3);
        assert_eq!(text.lines().count(), PTX.lines().count(), "{mutant}");
        let differ = text.lines().zip(PTX.lines()).filter(|(new, old)| new != old).count();
        assert!((1..=2).contains(&differ), "{mutant}: {differ} lines differ");
    }
}

#[test]
fn a_survey_distinguishes_killed_mutants_from_survivors() {
    let mutants = mutants(PTX, Some("kernel")).unwrap();
    let run = |text: &str, seed: u64| match () {
        _ if !text.contains("bar.arrive") => Outcome::Stopped("deadlock".into()),
        // Only the second seed reveals the missing fence.
        _ if !text.contains("membar.gl") && seed == 7 => Outcome::Bits(vec![2]),
        _ => Outcome::Bits(vec![1]),
    };
    let survey = survey(PTX, &mutants, &[3, 7], run).unwrap();
    let killed: Vec<_> = survey.results.iter().filter(|(_, status)| *status != Status::Survived).collect();
    assert_eq!(killed.len(), 3);
    assert_eq!(killed[0].1, Status::Killed { seed: 3, by: KilledBy::Finding("deadlock".into()) });
    assert_eq!(killed[1].1, Status::Killed { seed: 7, by: KilledBy::WrongBits });
    assert_eq!((survey.of_class(Class::Barrier), survey.of_class(Class::Fence)), ((1, 4), (2, 3)));
    let report = survey.to_string();
    assert!(report.contains("Barrier        1       4\n") && report.contains("all            3      27\n"), "{report}");
    assert!(report.contains("survivors:\n  NeverLeave in helper at PTX line 6 (PTX line 6)"), "{report}");
}

#[test]
fn a_survey_requires_a_deterministic_original_and_valid_mutants() {
    let mutants = mutants(PTX, Some("kernel")).unwrap();
    let nondeterministic = survey(PTX, &mutants, &[1, 2], |_, seed| Outcome::Bits(vec![seed as u8]));
    assert_eq!(nondeterministic.unwrap_err(), SurveyError::Nondeterministic { first: 1, seed: 2 });
    let stopped = survey(PTX, &mutants, &[1], |_, _| Outcome::Stopped("a race".into()));
    assert_eq!(stopped.unwrap_err().to_string(), "the original, seed 1: a race");
    let invalid = survey(PTX, &mutants, &[1], |text, _| match text {
        PTX => Outcome::Bits(Vec::new()),
        _ => Outcome::Invalid("not PTX".into()),
    });
    assert!(matches!(invalid.unwrap_err(), SurveyError::Invalid { .. }));
}
