//! cudarc's safe interface on the emulator, without changes: the library is loaded first, and cudarc finds it as
//! libcuda.so. One test runs at a time, because they share the primary context: cudarc's `new_stream` waits for the
//! whole context, which would invalidate a capture of another test.

mod support;

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use support::PTX;

#[test]
fn cudarc_runs_a_kernel() -> Result<(), DriverError> {
    let _lock = support::exclusive();
    support::library();
    let context = CudaContext::new(0)?;
    assert!(context.name()?.starts_with("Emulated"));
    assert_eq!(context.compute_capability()?, (8, 0));
    let stream = context.new_stream()?;
    let module = context.load_module(cudarc::nvrtc::Ptx::from_src(PTX))?;
    let scale = module.load_function("scale")?;
    let input: Vec<u32> = (0..500).collect();
    let input = stream.clone_htod(&input)?;
    let mut out = stream.alloc_zeros::<u32>(500)?;
    let (a, b, n) = (2_u32, 9_u32, 500_u32);
    let mut launch = stream.launch_builder(&scale);
    launch.arg(&mut out).arg(&input).arg(&a).arg(&b).arg(&n);
    // SAFETY: the arguments match the kernel's parameters, and both buffers have n words.
    #[allow(unsafe_code)]
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }?;
    let out = stream.clone_dtoh(&out)?;
    assert_eq!(out, (0..500).map(|i| 2 * i + 9).collect::<Vec<u32>>());
    Ok(())
}

#[test]
fn cudarc_captures_a_graph() -> Result<(), DriverError> {
    use cudarc::driver::sys::{CUgraphInstantiate_flags_enum, CUstreamCaptureMode};
    let _lock = support::exclusive();
    support::library();
    let context = CudaContext::new(0)?;
    // A captured stream must not wait for the events with which cudarc orders its streams.
    // SAFETY: the test uses one stream only.
    #[allow(unsafe_code)]
    unsafe {
        context.disable_event_tracking();
    }
    let stream = context.new_stream()?;
    let from = stream.clone_htod(&[1_u32, 2, 3])?;
    let mut to = stream.alloc_zeros::<u32>(3)?;
    stream.synchronize()?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
    stream.memcpy_dtod(&from, &mut to)?;
    let flags = CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.expect("something was captured");
    graph.launch()?;
    assert_eq!(stream.clone_dtoh(&to)?, [1, 2, 3]);
    Ok(())
}
