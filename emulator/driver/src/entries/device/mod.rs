//! The device: its name, limits and attributes, which are those of a T4, A100 or H100.

mod attributes;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_VALUE};
use ptx_emulator::Arch;

use crate::boundary::{Buffer, Device, DeviceProperties, Out, Text, Uuid};
use crate::driver::{self, check_device};
use crate::error::{Because, Result, ensure};
use crate::export::exports;

const BUS_ID: &str = "0000:01:00.0";

/// `Emulated sm_80 GPU`: the name shows that the device is not hardware.
fn name(arch: Arch) -> String {
    format!("Emulated sm_{}{} GPU", arch.major, arch.minor)
}

/// The UUID: the same in every process, and different for every architecture.
fn uuid(arch: Arch) -> Uuid {
    let mut bytes = *b"ironwarp-emul-80";
    (bytes[14], bytes[15]) = (b'0' + arch.major as u8, b'0' + arch.minor as u8);
    Uuid(bytes)
}

fn write_text(out: Buffer, size: i32, text: &str) -> Result<()> {
    let size = usize::try_from(size).ok().filter(|&size| size > 0 && !out.is_null());
    let Some(size) = size else {
        return Err(CUDA_ERROR_INVALID_VALUE.because("the buffer for the text is null or empty"));
    };
    out.set(text, size);
    Ok(())
}

exports! {
    fn cuInit(flags: u32) {
        driver::initialise(flags)?;
    }

    fn cuDriverGetVersion(out: Out<i32>) {
        out.set(driver::driver_version())?;
    }

    fn cuDeviceGetCount(out: Out<i32>) {
        driver::ready()?;
        out.set(1)?;
    }

    fn cuDeviceGet(out: Out<Device>, ordinal: i32) {
        driver::ready()?;
        check_device(ordinal)?;
        out.set(ordinal)?;
    }

    fn cuDeviceGetName(out: Buffer, size: i32, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        write_text(out, size, &name(driver.settings.arch))?;
    }

    fn cuDeviceGetUuid = cuDeviceGetUuid_v2(out: Out<Uuid>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        out.set(uuid(driver.settings.arch))?;
    }

    fn cuDeviceTotalMem_v2(out: Out<usize>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        out.set(driver.memory.limit() as usize)?;
    }

    fn cuDeviceGetAttribute(out: Out<i32>, name: i32, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        let value = attributes::find(driver.settings.arch, &driver.limits, name);
        let Some(value) = value else {
            return Err(CUDA_ERROR_INVALID_VALUE.because(format!("device attribute {name} is unknown")));
        };
        out.set(value)?;
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        major.set(driver.settings.arch.major as i32)?;
        minor.set(driver.settings.arch.minor as i32)?;
    }

    fn cuDeviceGetProperties(out: Out<DeviceProperties>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        let (arch, limits) = (driver.settings.arch, &driver.limits);
        out.set(attributes::properties(arch, limits))?;
    }

    fn cuDeviceGetPCIBusId(out: Buffer, size: i32, device: Device) {
        driver::ready()?;
        check_device(device)?;
        write_text(out, size, BUS_ID)?;
    }

    fn cuDeviceGetByPCIBusId(out: Out<Device>, bus_id: Text) {
        driver::ready()?;
        let bus_id = bus_id.get()?;
        ensure!(bus_id == BUS_ID, CUDA_ERROR_INVALID_DEVICE, "no device at {bus_id}: the only device is at {BUS_ID}");
        out.set(0)?;
    }

    fn cuDeviceCanAccessPeer(out: Out<i32>, device: Device, peer: Device) {
        driver::ready()?;
        check_device(device)?;
        check_device(peer)?;
        out.set(0)?;
    }

    fn cuDeviceGetExecAffinitySupport(out: Out<i32>, kind: u32, device: Device) {
        // Execution affinity is not emulated.
        let _ = kind;
        driver::ready()?;
        check_device(device)?;
        out.set(0)?;
    }

    fn cuProfilerStart() {
        driver::lock()?.current()?;
    }

    fn cuProfilerStop() {
        driver::lock()?.current()?;
    }
}
