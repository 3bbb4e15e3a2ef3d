//! `ironwarp bench` and `ironwarp profile`: output, saved results, comparison and errors.

use serde_json::Value;

use crate::support::{Lab, parse_lines};

/// Small problems of every kind: row-wise operations, a matrix product, and an attention backward, which needs its forward.
const QUICK: &str = "bench gelu layernorm_backward matmul_forward attention_backward --device cpu --tokens 32 --ms 1";

#[test]
fn every_row_has_times_floor_and_verification() {
    let lab = Lab::new();
    let lines = lab.run(&format!("{QUICK} --json --out out")).records();
    let (facts, rows) = lines.split_first().unwrap();
    assert_eq!(facts["facts"]["threads"], 1, "{facts}");
    assert!(facts["ceilings"]["copy_gb_per_s"].as_f64().unwrap() > 0.0, "{facts}");
    let names: Vec<&str> = rows.iter().map(|row| row["op"].as_str().unwrap()).collect();
    let mut families = names.clone();
    families.dedup();
    assert_eq!(families, ["matmul_forward", "gelu_forward", "attention_backward", "layernorm_backward"]);
    // QKV, attention projection, the two layers of the MLP, and the LM head.
    assert_eq!(names.iter().filter(|name| **name == "matmul_forward").count(), 5);
    for row in rows {
        for key in ["median_us", "p10_us", "p90_us", "floor_bytes", "floor_us", "share_of_floor", "gb_per_s"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} of {row}");
        }
        let matmul = row["op"] == "matmul_forward";
        assert_eq!(row["floor_flops"].as_u64().unwrap() > 0, matmul || row["op"] == "attention_backward", "{row}");
        assert!(row["verified"]["error"].as_f64().unwrap() < 1e-4, "{row}");
    }
    let saved: Value = serde_json::from_str(&lab.read("out/results.json")).unwrap();
    assert_eq!(saved["rows"].as_array().unwrap(), rows);
    for drawing in ["out/bars.svg", "out/roofline.svg"] {
        let drawing = lab.read(drawing);
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"), "{drawing}");
        assert!(drawing.contains("matmul_forward n=32 c=768 oc=2304 bias"), "{drawing}");
    }
}

#[test]
fn slower_problems_fail_the_comparison() {
    let lab = Lab::new();
    let bench = "bench gelu --device cpu --shape n=64,c=512 --ms 20";
    lab.run(&format!("{bench} --save saved.json")).ok();
    // The change is far above the noise.
    let changed = |factor: f64| {
        let mut saved: Value = serde_json::from_str(&lab.read("saved.json")).unwrap();
        for key in ["median_us", "p10_us", "p90_us"] {
            saved["rows"][0][key] = (saved["rows"][0][key].as_f64().unwrap() * factor).into();
        }
        lab.write("old.json", saved.to_string());
        lab.run(&format!("{bench} --compare old.json"))
    };
    changed(1e-3).fails(1, &["gelu_forward n=64 c=512: ", "1 of 1 problems are slower than before"]);
    let faster = changed(1e3);
    assert_eq!(faster.code, 0, "{}", faster.stderr);
    assert!(faster.stderr.contains("no problem is slower than before"), "{}", faster.stderr);

    let mut other: Value = serde_json::from_str(&lab.read("saved.json")).unwrap();
    other["facts"]["device"] = "Abacus".into();
    lab.write("other.json", other.to_string());
    lab.run(&format!("{bench} --compare other.json")).fails(1, &["measured on Abacus, not on"]);
    lab.write("none.json", "{}");
    lab.run(&format!("{bench} --compare none.json")).fails(1, &["none.json: no rows: it is not a saved benchmark"]);
    lab.run(&format!("{bench} --compare absent.json")).fails(1, &["cannot read absent.json"]);
}

#[test]
fn peers_are_measured_interleaved_or_reported_as_absent() {
    let lab = Lab::new();
    let bench = "bench gelu --device cpu --shape n=64,c=512 --ms 2 --json";
    // The second round takes twice as long, so a median of 3 proves that both rounds were used.
    lab.write(
        "torch",
        r#"#!/bin/sh
echo '{"ready": true, "torch": "2.0"}'
us=2
while read -r request; do
    echo "$request" >>requests
    echo '{"op": "gelu_forward", "peer": "torch gelu", "median_us": '$us', "p10_us": 1, "p90_us": 5, "samples": 7}'
    echo '{"op": "gelu_forward", "peer": "torch compiled", "absent": "no compiler"}'
    echo '{"done": true}'
    us=4
done
"#,
    );
    lab.shell("chmod +x torch");
    let lines = lab.run(&format!("{bench} --peers ./torch")).records();
    assert_eq!(lines[0]["facts"]["torch"]["torch"], "2.0");
    let [gelu, compiled] = &lines[1]["peers"].as_array().unwrap()[..] else { panic!("{}", lines[1]) };
    assert_eq!((&gelu["median_us"], &gelu["samples"]), (&3.0.into(), &14.into()), "{gelu}");
    let ratio = 3.0 / lines[1]["median_us"].as_f64().unwrap();
    assert!((gelu["ratio"].as_f64().unwrap() / ratio - 1.0).abs() < 1e-9, "{gelu}");
    assert_eq!(compiled["absent"], "no compiler");
    let requests = parse_lines(&lab.read("requests"));
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0]["shape"].to_string(), r#"{"n":64,"c":512}"#);

    // A peer that exits early, one without PyTorch, and one that does not exist.
    lab.write("mute", "#!/bin/sh\necho '{\"ready\": true}'\nread -r request\n");
    lab.write("bare", "#!/bin/sh\necho '{\"ready\": false, \"why\": \"No module named torch\"}'\n");
    lab.shell("chmod +x mute bare");
    let lines = lab.run(&format!("{bench} --peers ./mute")).records();
    assert_eq!(lines[1]["peers"][0]["absent"], "its process has ended");
    for (python, why) in [("./bare", "No module named torch"), ("./nowhere", "No such file or directory")] {
        let ran = lab.run(&format!("{bench} --peers {python}"));
        let facts = &parse_lines(&ran.stdout)[0]["facts"]["torch"];
        assert!(facts.as_str().unwrap().contains(why) && ran.stderr.contains(why), "{facts}: {}", ran.stderr);
    }
}

#[test]
fn invalid_arguments_are_reported() {
    let lab = Lab::new();
    for (args, why) in [
        ("bench softmax", "unknown operation 'softmax'; expected one of: embedding_forward, "),
        ("bench gelu --model gpt5", "unknown model preset 'gpt5'"),
        (
            "bench gelu --tokens 1500",
            "--tokens of gpt2-124M: 1500 tokens are not a whole number of sequences of 1024 tokens",
        ),
        ("bench gelu --shape k=3", "shape 'k=3' of gelu_forward: unknown size 'k'; expected one of: n, c"),
        ("bench gelu --shape n=0", "n = '0' is not a valid size"),
        (
            "bench matmul_forward --shape variant=relu",
            "unknown variant 'relu'; expected one of: none, bias, bias_gelu, bias_residual",
        ),
        ("bench gelu --shape n", "'n' is not NAME=SIZE"),
        ("profile softmax", if cfg!(feature = "cuda") { "unknown operation 'softmax'" } else { "no CUDA backend" }),
    ] {
        let device = if args.starts_with("bench") { " --device cpu" } else { "" };
        lab.run(&format!("{args}{device}")).fails(1, &[why]);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn an_emulated_gpu_is_counted_and_not_timed() {
    let lab = Lab::new();
    lab.run("bench gelu --device emulated").fails(1, &["the emulated GPU cannot be timed; `ironwarp profile` "]);
    // Building the emulated GPU, which cannot be timed, is no way out.
    let ran = lab.run("bench gelu --device cuda:99");
    ran.fails(1, &["--device cpu benchmarks the CPU backend"]);
    assert!(!ran.stderr.contains("make emulator"), "{}", ran.stderr);
    let lines = lab.run("profile layernorm attention_backward --json --save counts.json --html page.html").records();
    let (missing, counted): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line.get("missing").is_some());
    assert!(missing.iter().all(|line| line["op"] == "attention_backward"), "{missing:?}");
    assert!(counted.len() >= 7, "{lines:?}");
    for line in counted.iter().filter(|line| line["stem"] == "layernorm") {
        assert_eq!((&line["bound"], &line["spill_bytes"]), (&"memory".into(), &0.into()), "{line}");
        let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"));
        let share = number("global_bytes") / number("floor_bytes");
        assert!((1.0..1.05).contains(&share), "{line}");
        assert!(number("sectors_per_request") > 12.0 && number("registers") > 16.0 && number("occupancy") > 0.1);
        assert!(number("shared_wavefronts") > 0.0 && number("bank_conflicts") == 0.0, "{line}");
    }
    assert!(lab.read("page.html").contains("residual_layernorm_forward_c2048"));

    lab.run("profile gelu --check counts.json").fails(1, &["gelu_forward n=256 c=3072: is not in the file"]);
    lab.run("profile layernorm_backward --check counts.json").ok();
    lab.write("counts.json", lab.read("counts.json").replacen("\"sectors\": ", "\"sectors\": 1", 1));
    let ran = lab.run("profile layernorm --check counts.json");
    ran.fails(1, &["the counts of 1 problem(s) differ from those in counts.json; if this is intended, update the file with `make counts`"]);

    let source = lab.run("profile gelu --source --shape n=8,c=64").ok();
    assert!(source.contains("kernels/gelu.cu, in gelu_forward n=8 c=64"), "{source}");
    // A kernel that writes out of bounds: the device is lost, which has an exit code of its own.
    lab.write(
        "wild.ptx",
        ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry gelu_forward(.param .align 8 .b8 params[24])\n\
         .maxntid 256\n{\n.reg .b64 %at;\nmov.u64 %at, 64;\nst.global.u64 [%at], %at;\nret;\n}\n",
    );
    lab.run("profile gelu --kernels gelu=wild.ptx").fails(4, &["device lost: ", "gelu_forward (", "Bounds"]);
    lab.write("bad.ptx", "nothing");
    lab.run("profile gelu --kernels gelu=bad.ptx").fails(1, &["gelu"]);
    lab.run("profile gelu --kernels gelu").fails(1, &["--kernels 'gelu' is not of the form STEM=FILE.ptx"]);
    lab.run("profile gelu --kernels gemm=bad.ptx").fails(1, &["there are no kernels kernels/gemm.cu to replace"]);
}
