//! mov, selp, slct.

use crate::harness::{against, against_all, check};

#[test]
fn copies() {
    for ty in ["b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64", "pred"] {
        against(&format!("mov.{ty} r, a"), |row| row[0]);
    }
    check("mov.b32 r, 0xdeadbeef", &[&[0xdead_beef]]);
    check("mov.s16 r, -2", &[&[0xfffe]]);
    check("mov.f32 r, 0f7FC00001", &[&[0x7fc0_0001]]);
    check("mov.f32 r, 0d3FF8000000000000", &[&[0x3fc0_0000]]);
    check("mov.f64 r, 0d3FF8000000000000", &[&[0x3ff8 << 48]]);
    check("mov.pred r, 1", &[&[1]]);
    check("mov.pred r, !a", &[&[1, 0], &[0, 1]]);
}

#[test]
fn packing() {
    against("mov.b32 r, {a, b}", |row| row[1] << 16 | row[0]);
    against("mov.b64 r, {a, b}", |row| row[1] << 32 | row[0]);
    against("mov.b64 r, {a, b, c, d}", |row| row[3] << 48 | row[2] << 32 | row[1] << 16 | row[0]);
    check("mov.b16 r, {a, b}", &[&[0x12, 0x34, 0x3412]]);
    check("mov.b32 r, {a, b, c, d}", &[&[0x12, 0x34, 0x56, 0x78, 0x7856_3412]]);
    check("mov.b32 r, {a, 0}", &[&[0x1234, 0x1234]]);
    against_all("mov.b32 {r, s}, a", |row| vec![row[0] & 0xffff, row[0] >> 16]);
    against_all("mov.b64 {r, s}, a", |row| vec![row[0] & 0xffff_ffff, row[0] >> 32]);
    against_all("mov.b64 {r, s, t, u}, a", |row| (0..4).map(|i| row[0] >> (16 * i) & 0xffff).collect());
    against_all("mov.b32 {r, s, t, u}, a", |row| (0..4).map(|i| row[0] >> (8 * i) & 0xff).collect());
    against("mov.b64 {_, s}, a", |row| row[0] >> 32);
    against("mov.b64 {r, _}, a", |row| row[0] & 0xffff_ffff);
    // A source that is also a result, and a result that is also a source.
    against_all("mov.b32 {a, s}, a", |row| vec![row[0] & 0xffff, row[0] >> 16]);
    against("mov.b32 a, {a, b}", |row| (row[1] << 16 | row[0] & 0xffff) & 0xffff_ffff);
}

#[test]
fn selection() {
    for ty in ["b16", "u32", "f32", "b64", "f64"] {
        against(&format!("selp.{ty} r, a, b, p"), |row| if row[2] != 0 { row[0] } else { row[1] });
        against(&format!("slct.{ty}.s32 r, a, b, c"), |row| if row[2] >> 31 == 0 { row[0] } else { row[1] });
        against(&format!("slct.{ty}.f32 r, a, b, c"), |row| {
            if f32::from_bits(row[2] as u32) >= 0.0 { row[0] } else { row[1] }
        });
    }
    check("selp.s32 r, -1, 0, p", &[&[1, 0xffff_ffff], &[0, 0]]);
    check(
        "slct.b32.f32 r, a, b, c",
        &[&[1, 2, 0x8000_0000, 1], &[1, 2, 0x8000_0001, 2], &[1, 2, 0x7fc0_0000, 2], &[1, 2, 0, 1]],
    );
    check("slct.ftz.b64.f32 r, a, b, c", &[&[1, 2, 0x8000_0001, 1], &[1, 2, 0xbf80_0000, 2]]);
}
