//! Runs a case on the emulator.

use ptx_emulator::memory::Memory;
use ptx_emulator::{Arch, Launch, LaunchError, LoadError, Module, Param, Settings};

use crate::case::{Argument, Buffer, Case, Outcome};

/// Maximum number of warp instructions of a form.
const STEPS: u64 = 1 << 20;

/// Loads, launches and compares.
///
/// # Errors
/// The result, and the expected one.
pub fn run(case: &Case, arch: Arch, seed: u64) -> Result<(), String> {
    let memory = Memory::new(1 << 30);
    let module = match (Module::load(&case.text, arch, &memory), &case.outcome) {
        (Ok(module), Outcome::Completes | Outcome::Finding { .. }) => module,
        (Err(error), Outcome::Refused { words }) => return refused(&error, words),
        (Ok(_), Outcome::Refused { words }) => {
            return Err(format!("it was loaded, expected an error with `{words}`"));
        }
        (Err(error), _) => return Err(format!("it was not loaded: {error}")),
    };
    let limits = arch.limits().ok_or("a device without limits")?;
    let kernel = module.kernel("test").ok_or("no entry `test`")?;
    let Arguments { params, buffers } = arguments(case, &kernel.params, &memory)?;
    let launch = Launch {
        kernel,
        grid: case.grid,
        block: case.block,
        cluster: [1; 3],
        dynamic_shared: case.shared,
        shared_limit: limits.shared_per_block_optin(),
        params: &params,
    };
    // With one host thread, the seed alone determines the schedule.
    let settings = Settings { seed, threads: 1, step_budget: STEPS, ..Settings::default() };
    match (launch.run(&memory, &limits, &settings), &case.outcome) {
        (Ok(_), Outcome::Completes) => {}
        (Err(LaunchError::Found(finding)), Outcome::Finding { check, words }) => {
            let message = finding.to_string();
            let fits = format!("{:?}", finding.check) == *check && message.contains(words);
            return if fits {
                Ok(())
            } else {
                Err(format!("expected a finding {check} with `{words}`, got {message}"))
            };
        }
        (Ok(_), Outcome::Finding { check, words }) => {
            return Err(format!("it completed, expected a finding {check} with `{words}`"));
        }
        (Err(error), _) => return Err(error.to_string()),
        (Ok(_), Outcome::Refused { .. }) => {}
    }
    for (buffer, address) in buffers {
        let mut bytes = vec![0; buffer.bytes()];
        memory.read(address, &mut bytes).map_err(|error| error.to_string())?;
        buffer.check(&bytes)?;
    }
    Ok(())
}

fn refused(error: &LoadError, words: &str) -> Result<(), String> {
    let message = error.to_string();
    if message.contains(words) { Ok(()) } else { Err(format!("expected an error with `{words}`, got `{message}`")) }
}

/// The arguments of a launch: the parameter block, and the buffers with their addresses.
struct Arguments<'c> {
    params: Vec<u8>,
    buffers: Vec<(&'c Buffer, u64)>,
}

/// Allocates the buffers and writes their initial contents.
fn arguments<'c>(case: &'c Case, params: &[Param], memory: &Memory) -> Result<Arguments<'c>, String> {
    let (have, want) = (case.arguments.len(), params.len());
    if have != want {
        return Err(format!("the entry has {want} parameters, the header {have}"));
    }
    let mut block = vec![0; params.last().map_or(0, |last| (last.offset + last.size) as usize)];
    let mut buffers = Vec::new();
    for (argument, param) in case.arguments.iter().zip(params) {
        let (name, bytes) = match argument {
            Argument::Scalar { name, bytes } => (name, bytes.clone()),
            Argument::Buffer(buffer) => {
                let label = Some(format!("buffer {}", buffer.name));
                let allocation = memory.allocate_as(buffer.bytes() as u64, label, false);
                let address = allocation.map_err(|error| error.to_string())?.base;
                if let Some(bytes) = buffer.initial() {
                    memory.write(address, &bytes).map_err(|error| error.to_string())?;
                }
                buffers.push((buffer, address));
                (&buffer.name, address.to_le_bytes().to_vec())
            }
        };
        if bytes.len() != param.size as usize {
            return Err(format!("the parameter {} has {} bytes, {name} has {}", param.name, param.size, bytes.len()));
        }
        block[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(Arguments { params: block, buffers })
}
