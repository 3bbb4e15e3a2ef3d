//! Arguments that no function may accept: each is refused by name, nothing is enqueued, and the device goes on working.

use std::mem::offset_of;
use std::ptr::{null, null_mut};

use cudarc::driver::result;
use ironwarp_capi::*;

use crate::operations::stream;
use crate::support::{Program, last_error, ok, ptr};

/// A pointer field of a struct; messages name it like the field.
pub struct Pointer {
    pub name: &'static str,
    pub offset: usize,
}

/// A size field of a struct and its name in messages.
pub struct Size {
    pub name: &'static str,
    pub offset: usize,
}

macro_rules! pointers {
    ($args:ty: $($field:ident),*) => {
        &[$(Pointer { name: stringify!($field), offset: offset_of!($args, $field) }),*]
    };
}

macro_rules! sizes {
    ($args:ty: $($field:ident = $name:literal),*) => {
        &[$(Size { name: $name, offset: offset_of!($args, $field) }),*]
    };
}

pub(crate) use {pointers, sizes};

/// Calls `call` with one field after another replaced, and at last with `args` as it is.
pub fn hostile<A: Copy>(args: A, pointers: &[Pointer], sizes: &[Size], call: impl Fn(*const A) -> Status) {
    let refused = |args: *const A, contains: &str| {
        assert_eq!(call(args), Status::InvalidArgument, "expected '{contains}', last error '{}'", last_error());
        assert!(last_error().contains(contains), "'{}' does not contain '{contains}'", last_error());
    };
    refused(null(), "args is not NULL failed (args = NULL)");
    let with = |offset: usize, value: i64| {
        let mut changed = args;
        // SAFETY: the field at this offset has 8 bytes: a pointer or an i64.
        unsafe { (&raw mut changed).cast::<u8>().add(offset).cast::<i64>().write_unaligned(value) };
        changed
    };
    let value = |offset: usize| {
        // SAFETY: as above.
        unsafe { (&raw const args).cast::<u8>().add(offset).cast::<i64>().read_unaligned() }
    };
    let on_host = [0u64; 512];
    for Pointer { name, offset } in pointers {
        let (offset, found) = (*offset, value(*offset));
        refused(&with(offset, 0), name);
        assert!(last_error().contains("NULL"), "{}", last_error());
        refused(&with(offset, found + 1), name);
        refused(&with(offset, on_host.as_ptr() as i64), &format!("{name} "));
        assert!(last_error().contains("is device memory failed"), "{}", last_error());
        // The driver rounds no allocation up, so that one vector later is too late.
        refused(&with(offset, found + 16), &format!("{name} "));
        assert!(["allocation", "device memory"].iter().any(|text| last_error().contains(text)), "{}", last_error());
    }
    for Size { name, offset } in sizes {
        for bad in [0, -1, i64::MIN] {
            refused(&with(*offset, bad), &format!("{name} >= 1 failed ({name} = {bad})"));
        }
        for huge in [(1 << 31) + 8, 1 << 40, 1 << 62, i64::MAX] {
            refused(&with(*offset, huge), " failed (");
        }
    }
    ok(call(&args));
}

/// The workspace of a function, and the same function with workspaces that must be refused.
pub fn hostile_workspace(program: &Program, bytes: usize, call: impl Fn(Workspace) -> Status) {
    let (_memory, workspace) = program.workspace(bytes);
    let refused = |workspace, contains: &str| {
        assert_eq!(call(workspace), Status::InvalidArgument, "expected '{contains}'");
        assert!(last_error().contains(contains), "'{}' does not contain '{contains}'", last_error());
    };
    let Workspace { ptr, .. } = workspace;
    refused(Workspace { ptr: null_mut(), bytes }, "workspace is not NULL");
    refused(
        Workspace { ptr: ptr.wrapping_byte_add(16), bytes },
        "workspace is aligned to 256 bytes failed (it begins 16",
    );
    refused(Workspace { ptr, bytes: bytes + (1 << 30) }, "workspace lies within its allocation");
    refused(Workspace { ptr, bytes: bytes - 1 }, &format!("has {} bytes, but the operation needs {bytes}", bytes - 1));
    refused(Workspace { ptr: null_mut(), bytes: 0 }, &format!("has 0 bytes, but the operation needs {bytes}"));
    ok(call(workspace));
}

/// The size of a workspace, and calls that must be refused: null pointers, and sizes that no memory has.
pub fn hostile_size<A: Copy>(
    args: &A,
    sizes: &[Size],
    size: unsafe extern "C" fn(*const A, *mut usize) -> Status,
) -> usize {
    let mut bytes = 0;
    for Size { name, offset } in sizes {
        for bad in [0, 1 << 62, i64::MAX] {
            let mut changed = *args;
            // SAFETY: the field at this offset is an i64.
            unsafe { (&raw mut changed).cast::<u8>().add(*offset).cast::<i64>().write_unaligned(bad) };
            // SAFETY: valid pointers.
            assert_eq!(unsafe { size(&changed, &mut bytes) }, Status::InvalidArgument, "{name} = {bad}");
        }
    }
    // SAFETY: null or valid pointers.
    unsafe {
        assert_eq!(size(null(), &mut bytes), Status::InvalidArgument);
        assert_eq!(size(args, null_mut()), Status::InvalidArgument);
        assert!(last_error().contains("bytes is not NULL failed (bytes = NULL)"), "{}", last_error());
        ok(size(args, &mut bytes));
    }
    bytes
}

#[test]
fn layernorm() {
    let p = Program::new();
    let (n, c) = (64, 64);
    let (x, weight, bias, out) = (p.bf16(1, [n, c]), p.bf16(2, [c]), p.bf16(3, [c]), p.bf16(4, [n, c]));
    let (residual, sum) = (p.bf16(5, [n, c]), p.bf16(6, [n, c]));
    let (mean, rstd, dweight, dbias) = (p.f32(7, [n]), p.f32(8, [n]), p.f32(9, [c]), p.f32(10, [c]));
    let (n, c) = (n as i64, c as i64);
    let args = LayernormForward {
        x: ptr(&x),
        weight: ptr(&weight),
        bias: ptr(&bias),
        out: ptr(&out),
        mean: ptr(&mean),
        rstd: ptr(&rstd),
        n,
        c,
    };
    hostile(
        args,
        pointers!(LayernormForward: x, weight, bias, out, mean, rstd),
        sizes!(LayernormForward: n = "N", c = "C"),
        // SAFETY: what is not refused is valid.
        |args| unsafe { ironwarp_layernorm_forward(args, stream(&p)) },
    );
    let args = ResidualLayernormForward {
        x: ptr(&x),
        residual: ptr(&residual),
        weight: ptr(&weight),
        bias: ptr(&bias),
        sum: ptr(&sum),
        out: ptr(&out),
        mean: ptr(&mean),
        rstd: ptr(&rstd),
        n,
        c,
    };
    hostile(
        args,
        pointers!(ResidualLayernormForward: x, residual, weight, bias, sum, out, mean, rstd),
        sizes!(ResidualLayernormForward: n = "N", c = "C"),
        // SAFETY: as above.
        |args| unsafe { ironwarp_residual_layernorm_forward(args, stream(&p)) },
    );
    let args = LayernormBackward {
        dout: ptr(&x),
        x: ptr(&sum),
        weight: ptr(&weight),
        mean: ptr(&mean),
        rstd: ptr(&rstd),
        dx: ptr(&out),
        dweight: ptr(&dweight),
        dbias: ptr(&dbias),
        n,
        c,
        accumulate_dx: 0,
        accumulate: 0,
    };
    let bytes =
        hostile_size(&args, sizes!(LayernormBackward: n = "N", c = "C"), ironwarp_layernorm_backward_workspace_size);
    let (_memory, workspace) = p.workspace(bytes);
    // SAFETY: as above.
    let call = |args: *const _| unsafe { ironwarp_layernorm_backward(args, workspace, stream(&p)) };
    hostile(
        args,
        pointers!(LayernormBackward: dout, x, weight, mean, rstd, dx, dweight, dbias),
        sizes!(LayernormBackward: n = "N", c = "C"),
        call,
    );
    assert_eq!(call(&LayernormBackward { accumulate: 2, ..args }), Status::InvalidArgument);
    assert_eq!(last_error(), "layernorm_backward: accumulate is 0 or 1 failed (accumulate = 2)");
    // SAFETY: as above.
    hostile_workspace(&p, bytes, |workspace| unsafe { ironwarp_layernorm_backward(&args, workspace, stream(&p)) });
}

#[test]
fn matmul() {
    let p = Program::new();
    let (n, c, oc) = (512, 64, 64);
    let (x, weight, bias) = (p.bf16(1, [n, c]), p.bf16(2, [oc, c]), p.bf16(3, [oc]));
    let (residual, pre, out) = (p.bf16(4, [n, oc]), p.bf16(5, [n, oc]), p.bf16(6, [n, oc]));
    let (dweight, dbias) = (p.f32(7, [oc, c]), p.f32(8, [oc]));
    let (n, c, oc) = (n as i64, c as i64, oc as i64);
    let args = MatmulForward {
        x: ptr(&x),
        weight: ptr(&weight),
        bias: ptr(&bias),
        residual: ptr(&residual),
        pre: ptr(&pre),
        out: ptr(&out),
        n,
        c,
        oc,
        epilogue: Epilogue::BiasGelu as i32,
    };
    // SAFETY: what is not refused is valid.
    let call = |args: *const MatmulForward| unsafe { ironwarp_matmul_forward(args, stream(&p)) };
    let sizes = sizes!(MatmulForward: n = "N", c = "C", oc = "OC");
    hostile(args, pointers!(MatmulForward: x, weight, bias, pre, out), sizes, call);
    let args = MatmulForward { epilogue: Epilogue::BiasResidual as i32, ..args };
    hostile(args, pointers!(MatmulForward: x, weight, bias, residual, out), sizes, call);
    assert_eq!(call(&MatmulForward { epilogue: 4, ..args }), Status::InvalidArgument);
    assert_eq!(last_error(), "matmul_forward: epilogue is one of IRONWARP_EPILOGUE_*, 0 to 3 failed (epilogue = 4)");
    let args = MatmulDgrad { dout: ptr(&out), weight: ptr(&weight), pre: null(), dx: ptr(&x), n, c, oc };
    hostile(
        args,
        pointers!(MatmulDgrad: dout, weight, dx),
        sizes!(MatmulDgrad: n = "N", c = "C", oc = "OC"),
        // SAFETY: as above.
        |args| unsafe { ironwarp_matmul_dgrad(args, stream(&p)) },
    );
    let args = MatmulWgrad {
        dout: ptr(&out),
        x: ptr(&x),
        dweight: ptr(&dweight),
        dbias: ptr(&dbias),
        n,
        c,
        oc,
        accumulate: 0,
    };
    let bytes =
        hostile_size(&args, sizes!(MatmulWgrad: n = "N", c = "C", oc = "OC"), ironwarp_matmul_wgrad_workspace_size);
    let (_memory, workspace) = p.workspace(bytes);
    hostile(
        args,
        pointers!(MatmulWgrad: dout, x, dweight),
        sizes!(MatmulWgrad: n = "N", c = "C", oc = "OC"),
        // SAFETY: as above.
        |args| unsafe { ironwarp_matmul_wgrad(args, workspace, stream(&p)) },
    );
    assert!(bytes > 0, "the shape is chosen so that K is split");
    // SAFETY: as above.
    hostile_workspace(&p, bytes, |workspace| unsafe { ironwarp_matmul_wgrad(&args, workspace, stream(&p)) });
}

#[test]
fn cross_entropy() {
    let p = Program::new();
    let (n, v, vp) = (64, 60, 64);
    let (logits, targets, losses) = (p.bf16(1, [n, vp]), p.ids(v, [n]), p.f32(2, [n]));
    let (n, v, vp) = (n as i64, v as i64, vp as i64);
    let args = CrossEntropyForward { logits: ptr(&logits), targets: ptr(&targets), losses: ptr(&losses), n, v, vp };
    hostile(
        args,
        pointers!(CrossEntropyForward: logits, targets, losses),
        sizes!(CrossEntropyForward: n = "N", v = "V", vp = "Vp"),
        // SAFETY: what is not refused is valid.
        |args| unsafe { ironwarp_cross_entropy_forward(args, stream(&p)) },
    );
    let args = CrossEntropyBackward {
        logits: ptr(&logits),
        targets: ptr(&targets),
        losses: ptr(&losses),
        n,
        v,
        vp,
        scale: 0.5,
    };
    // SAFETY: as above.
    let call = |args: *const CrossEntropyBackward| unsafe { ironwarp_cross_entropy_backward(args, stream(&p)) };
    hostile(
        args,
        pointers!(CrossEntropyBackward: logits, targets, losses),
        sizes!(CrossEntropyBackward: n = "N", v = "V", vp = "Vp"),
        call,
    );
    assert_eq!(call(&CrossEntropyBackward { scale: f32::NAN, ..args }), Status::InvalidArgument);
    assert_eq!(last_error(), "cross_entropy_backward: scale is a number failed (scale = NaN)");
}

#[test]
fn embedding() {
    let p = Program::new();
    let (b, t, c, vp, t_max) = (4, 16, 64, 64, 64);
    let (tokens, wte, wpe) = (p.ids(60, [b, t]), p.bf16(1, [vp, c]), p.bf16(2, [t_max, c]));
    let (out, dwte, dwpe) = (p.bf16(3, [b, t, c]), p.f32(4, [vp, c]), p.f32(5, [t_max, c]));
    let (b, t, c, vp, t_max) = (b as i64, t as i64, c as i64, vp as i64, t_max as i64);
    let args = EmbeddingForward {
        tokens: ptr(&tokens),
        wte: ptr(&wte),
        wpe: ptr(&wpe),
        out: ptr(&out),
        b,
        t,
        c,
        vp,
        t_max,
        position: 0,
    };
    // SAFETY: what is not refused is valid.
    let call = |args: *const EmbeddingForward| unsafe { ironwarp_embedding_forward(args, stream(&p)) };
    hostile(
        args,
        pointers!(EmbeddingForward: tokens, wte, wpe, out),
        sizes!(EmbeddingForward: b = "B", t = "T", c = "C", vp = "Vp", t_max = "T_max"),
        call,
    );
    for (position, rule) in [(-1, "position >= 0"), (49, "position + T <= T_max"), (i64::MAX, "position + T <= T_max")]
    {
        assert_eq!(call(&EmbeddingForward { position, ..args }), Status::InvalidArgument);
        assert!(last_error().contains(rule), "{}", last_error());
    }
    let args = EmbeddingBackward {
        tokens: ptr(&tokens),
        dout: ptr(&out),
        dwte: ptr(&dwte),
        dwpe: ptr(&dwpe),
        b,
        t,
        c,
        vp,
        t_max,
        accumulate: 0,
    };
    let bytes = hostile_size(
        &args,
        sizes!(EmbeddingBackward: b = "B", t = "T", c = "C", vp = "Vp"),
        ironwarp_embedding_backward_workspace_size,
    );
    let (_memory, workspace) = p.workspace(bytes);
    hostile(
        args,
        pointers!(EmbeddingBackward: tokens, dout, dwte, dwpe),
        sizes!(EmbeddingBackward: b = "B", t = "T", c = "C", vp = "Vp", t_max = "T_max"),
        // SAFETY: as above.
        |args| unsafe { ironwarp_embedding_backward(args, workspace, stream(&p)) },
    );
    // SAFETY: as above.
    hostile_workspace(&p, bytes, |workspace| unsafe { ironwarp_embedding_backward(&args, workspace, stream(&p)) });
}

#[test]
fn adamw() {
    let p = Program::new();
    let len = 64;
    let (weight, master, grad) = (p.bf16(1, [len]), p.f32(2, [len]), p.f32(3, [len]));
    let (m, v) = (p.f32(4, [len]), p.f32(5, [len]));
    let norm = p.f32(6, [1]);
    let args = GradNorm { grad: ptr(&grad), norm: ptr(&norm), p: len as i64 };
    let bytes = hostile_size(&args, sizes!(GradNorm: p = "P"), ironwarp_grad_norm_workspace_size);
    let (_memory, workspace) = p.workspace(bytes);
    hostile(
        args,
        pointers!(GradNorm: grad, norm),
        sizes!(GradNorm: p = "P"),
        // SAFETY: what is not refused is valid.
        |args| unsafe { ironwarp_grad_norm(args, workspace, stream(&p)) },
    );
    // SAFETY: as above.
    hostile_workspace(&p, bytes, |workspace| unsafe { ironwarp_grad_norm(&args, workspace, stream(&p)) });
    let args = Adamw {
        weight: ptr(&weight),
        master: ptr(&master),
        grad: ptr(&grad),
        m: ptr(&m),
        v: ptr(&v),
        norm: ptr(&norm),
        loss: null(),
        p: len as i64,
        step: 1,
        seed: 0,
        first_index: 0,
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_norm: 1.0,
    };
    // SAFETY: as above.
    let call = |args: *const Adamw| unsafe { ironwarp_adamw(args, stream(&p)) };
    hostile(args, pointers!(Adamw: weight, master, grad, m, v, norm), sizes!(Adamw: p = "P"), call);
    for (bad, rule) in [
        (Adamw { step: 0, ..args }, "step >= 1 failed (step = 0)"),
        (Adamw { first_index: 4, ..args }, "first_index % 8 == 0 failed (first_index = 4)"),
        (Adamw { learning_rate: f32::NAN, ..args }, "learning_rate is a number failed (learning_rate = NaN)"),
        (Adamw { learning_rate: f32::INFINITY, ..args }, "lr finite failed (lr = inf)"),
        (Adamw { beta1: 1.0, ..args }, "0 <= β1 < 1 failed (β1 = 1)"),
        (Adamw { eps: 0.0, ..args }, "ε > 0 failed (ε = 0)"),
        (Adamw { max_norm: 0.0, ..args }, "max_norm > 0 failed (max_norm = 0)"),
    ] {
        assert_eq!(call(&bad), Status::InvalidArgument);
        assert!(last_error().ends_with(rule), "{}", last_error());
    }
}

/// Page-locked memory has an address that kernels can use, but it is in the host's memory.
#[test]
fn page_locked_memory_is_refused() {
    let p = Program::new();
    let norm = p.f32(1, [1]);
    p.stream.context().bind_to_thread().unwrap();
    // SAFETY: the memory is not accessed, and freed below.
    let pinned = unsafe { result::malloc_host(256, 0) }.unwrap();
    let args = GradNorm { grad: pinned.cast(), norm: ptr(&norm), p: 64 };
    let workspace = Workspace { ptr: null_mut(), bytes: 0 };
    // SAFETY: refused.
    assert_eq!(unsafe { ironwarp_grad_norm(&args, workspace, stream(&p)) }, Status::InvalidArgument);
    assert!(last_error().contains("grad (64) is device memory failed"), "{}", last_error());
    // SAFETY: allocated above.
    unsafe { result::free_host(pinned) }.unwrap();
}
