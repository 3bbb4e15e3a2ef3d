//! Escape sequences: colour on a terminal, and none in logs.

use crate::environment;
use crate::support::Lab;

/// A run with a warning: the numbers of its steps are not finite.
const WARNED: &str = "train --model m.toml --data t.txt --out run --overwrite --steps 4 --lr 1e30 --warmup 0";

#[test]
fn a_log_has_no_escape_sequences() {
    let ran = Lab::new().run_after("unset NO_COLOR; export TERM=xterm", WARNED);
    assert!(ran.stderr.contains("WARN") && !ran.stderr.contains('\x1b'), "{}", ran.stderr);
}

#[test]
fn a_terminal_has_colour_unless_it_is_forbidden() {
    let lab = Lab::new();
    // All output of the command on a pseudo-terminal, on which progress bars move the cursor.
    let on_terminal = |environment: &str, args: &str| {
        let command = format!("{} {args}", environment::command().display());
        let before =
            format!("unset NO_COLOR; export TERM=xterm {environment}; script -qec '{command}' /dev/null; exit");
        lab.run_after(&before, "").stdout
    };
    let has_colour = |text: &str| text.contains("\x1b[33m");
    let plain = on_terminal("", WARNED);
    if plain.is_empty() {
        return environment::skip("the command `script`");
    }
    assert!(plain.contains("WARN") && has_colour(&plain), "{plain:?}");
    for (environment, flag) in [("NO_COLOR=", ""), ("NO_COLOR=1", ""), ("TERM=dumb", ""), ("", "--json")] {
        let text = on_terminal(environment, &format!("{WARNED} {flag}"));
        assert!(text.contains("WARN") && !has_colour(&text), "{environment} {flag}: {text:?}");
    }
    for environment in ["NO_COLOR=", "TERM=dumb"] {
        let text = on_terminal(environment, "train --steps three");
        assert!(text.contains("invalid value") && !text.contains('\x1b'), "{environment}: {text:?}");
    }
    assert!(on_terminal("", "train --steps three").contains('\x1b'));
}

#[test]
fn generated_text_cannot_control_a_terminal() {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --steps 1 --batch 2 --val-every 0").ok();
    lab.write("prompt", "a\x1b[2Jb");
    let generate = "generate --model run --max-tokens 1 --device cpu --prompt";
    let command = format!("{} {generate} \"$(cat prompt)\"", environment::command().display());
    let shown = lab.run_after(&format!("script -qec '{command}' /dev/null; exit"), "").stdout;
    if shown.is_empty() {
        return environment::skip("the command `script`");
    }
    assert!(shown.starts_with("a\\u{1b}[2Jb") && !shown.contains('\x1b'), "{shown:?}");
    // A file or a pipe gets the text as it is.
    let exact = lab.run_args(&[&generate.split(' ').collect::<Vec<_>>()[..], &["a\x1b[2Jb"]].concat()).ok();
    assert!(exact.starts_with("a\x1b[2Jb"), "{exact:?}");
}
