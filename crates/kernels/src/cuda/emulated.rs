//! The device that is none: kernels compiled for the host, one after the other.
#![expect(
    unsafe_code,
    reason = "kernels are C++ and the emulated device's memory is raw; all of it is in this file"
)]

use super::backend::{Backend, Copy, Direction, Form, Launch, Product, Update};
use super::buffer::Buffer;
use super::device::{Device, DeviceInfo};
use crate::error::{KernelError, Result};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes before and behind every buffer that nothing may write.
const FENCE: usize = 128;
/// What they hold.
const FENCE_BYTE: u8 = 0xA5;
/// What fresh memory holds: NaN as a float, far outside as an index.
const GARBAGE: u8 = 0xFF;

unsafe extern "C" {
    fn emulator_launch(
        name: *const c_char,
        grid: *const u32,
        threads: u32,
        shared_bytes: u32,
        arguments: *mut *mut c_void,
        error: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn emulator_product(
        a: *const c_void,
        b: *const c_void,
        c: *mut f32,
        shape: *const usize,
        strides: *const usize,
        scale: f32,
        flags: *const c_int,
    );
}

/// Runs a kernel that breaks a rule of devices on a new emulator, with a buffer of four zeros:
/// what the emulator says of it, or what the buffer holds then. For the test of the emulator.
///
/// # Errors
/// What the emulator says.
pub fn run_broken(rule: &str) -> Result<Vec<u32>> {
    let device = Device::emulated();
    let buffer = Buffer::<u32>::zeros(&device, 4)?;
    let threads = if rule == "tile" { 32 } else { 64 };
    let launch = Launch::new(format!("broken_{rule}"), [2, 1, 1], threads)?
        .arg(buffer.address())
        .arg(4u32);
    device.backend().launch(&launch)?;
    buffer.read()
}

#[derive(Debug, Default)]
pub(super) struct Emulator {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of every buffer by its address.
    buffers: BTreeMap<u64, usize>,
    capturing: Option<Vec<Step>>,
    graphs: BTreeMap<u64, Vec<Step>>,
    next: u64,
    /// What went wrong; as on a device, everything fails from then on.
    broken: Option<String>,
}

/// What a graph can hold.
#[derive(Debug, Clone)]
enum Step {
    Copy(Copy),
    Fill(u64, u8, usize),
    Launch(Launch),
    Product(Product),
}

impl Emulator {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, step: Step) -> Result<()> {
        let mut state = self.state();
        if let Some(steps) = &mut state.capturing {
            steps.push(step);
            return Ok(());
        }
        state.run(&step)
    }
}

impl State {
    fn run(&mut self, step: &Step) -> Result<()> {
        self.check()?;
        match step {
            Step::Copy(copy) => {
                let ours = match copy.direction {
                    Direction::ToDevice => copy.to,
                    Direction::ToHost => copy.from,
                };
                self.check_range(ours, copy.bytes)?;
                // SAFETY: ours is a part of a buffer, the host's side is as long.
                unsafe { std::ptr::copy(copy.from as *const u8, copy.to as *mut u8, copy.bytes) };
            }
            Step::Fill(address, byte, bytes) => {
                self.check_range(*address, *bytes)?;
                // SAFETY: a part of a buffer of ours.
                unsafe { std::ptr::write_bytes(*address as *mut u8, *byte, *bytes) };
            }
            Step::Launch(launch) => {
                self.launch(launch);
                self.check_fences(&launch.kernel);
            }
            Step::Product(product) => multiply(product),
        }
        self.check()
    }

    fn launch(&mut self, launch: &Launch) {
        let Ok(name) = CString::new(launch.kernel.as_str()) else {
            self.broken = Some("a kernel's name with a zero byte".to_owned());
            return;
        };
        let mut arguments = launch.arguments.clone();
        let mut pointers: Vec<*mut c_void> = arguments
            .iter_mut()
            .map(|words| words.as_mut_ptr().cast())
            .collect();
        let mut error = vec![0u8; 512];
        // SAFETY: the arguments are those of the kernel (each operation packs its own), the
        // operands lie in live buffers of ours that the operation has checked.
        let failed = unsafe {
            emulator_launch(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.threads,
                0,
                pointers.as_mut_ptr(),
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        if failed != 0 {
            let text = error.split(|&byte| byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            self.broken = Some(format!("{}: {text}", launch.kernel));
        }
    }

    fn check_fences(&mut self, after: &str) {
        for (&address, &bytes) in &self.buffers {
            let start = address as usize;
            for fence in [start - FENCE, start + bytes] {
                // SAFETY: every buffer lies between two fences of its own allocation.
                let fence = unsafe { std::slice::from_raw_parts(fence as *const u8, FENCE) };
                if fence.iter().any(|&byte| byte != FENCE_BYTE) {
                    self.broken = Some(format!("{after} wrote beside a buffer of {bytes} bytes"));
                }
            }
        }
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(problem) => Err(KernelError::Device(format!("emulator: {problem}"))),
            None => Ok(()),
        }
    }

    fn check_range(&self, address: u64, bytes: usize) -> Result<()> {
        let buffer = self.buffers.range(..=address).next_back();
        match buffer {
            Some((&start, &len)) if address + bytes as u64 <= start + len as u64 => Ok(()),
            _ => Err(KernelError::Device(format!(
                "emulator: {bytes} bytes at {address:#x} are no part of a buffer"
            ))),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn multiply(product: &Product) {
    let shape = [product.m, product.n, product.k];
    let strides = [product.a_stride, product.b_stride, product.c_stride];
    let flags = [
        product.kind.code() as c_int,
        c_int::from(product.form == Form::AtB),
        c_int::from(product.form != Form::ABt),
        c_int::from(product.update == Update::Add),
    ];
    // SAFETY: the operation has checked that the operands are that large.
    unsafe {
        emulator_product(
            product.a as *const c_void,
            product.b as *const c_void,
            product.c as *mut f32,
            shape.as_ptr(),
            strides.as_ptr(),
            product.scale,
            flags.as_ptr(),
        );
    }
}

fn layout(bytes: usize) -> Result<Layout> {
    Layout::from_size_align(bytes + 2 * FENCE, 256)
        .map_err(|_| KernelError::Device(format!("no room for {bytes} bytes")))
}

impl Backend for Emulator {
    fn info(&self) -> Result<DeviceInfo> {
        Ok(DeviceInfo {
            name: "emulator".to_owned(),
            compute_capability: (0, 0),
            driver_version: (0, 0),
            total_bytes: 1 << 32,
            multiprocessors: 1,
            emulated: true,
        })
    }

    fn memory(&self) -> Result<(u64, u64)> {
        let used: usize = self.state().buffers.values().sum();
        let total = 1u64 << 32;
        Ok((total.saturating_sub(used as u64), total))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let (free, total) = self.memory()?;
        let needed = bytes as u64;
        if needed > free {
            let op = "emulator";
            return Err(KernelError::DeviceMemory {
                op,
                needed,
                free,
                total,
            });
        }
        let layout = layout(bytes)?;
        // SAFETY: the layout has a size; the writes stay inside.
        let start = unsafe {
            let start = alloc(layout);
            if start.is_null() {
                return Err(KernelError::Device("out of host memory".to_owned()));
            }
            std::ptr::write_bytes(start, FENCE_BYTE, layout.size());
            std::ptr::write_bytes(start.add(FENCE), GARBAGE, bytes);
            start as u64 + FENCE as u64
        };
        self.state().buffers.insert(start, bytes);
        Ok(start)
    }

    fn free(&self, address: u64) -> Result<()> {
        let Some(bytes) = self.state().buffers.remove(&address) else {
            return Err(KernelError::Device("freed twice".to_owned()));
        };
        // SAFETY: allocated above with this layout, and just forgotten.
        unsafe { dealloc((address as usize - FENCE) as *mut u8, layout(bytes)?) };
        Ok(())
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        self.allocate(bytes)
    }

    fn free_pinned(&self, address: u64) -> Result<()> {
        self.free(address)
    }

    fn copy(&self, copy: Copy) -> Result<()> {
        self.take(Step::Copy(copy))
    }

    fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<()> {
        self.take(Step::Fill(address, byte, bytes))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.take(Step::Launch(launch.clone()))
    }

    fn product(&self, product: &Product) -> Result<()> {
        self.take(Step::Product(*product))
    }

    fn synchronize(&self) -> Result<()> {
        let state = self.state();
        if state.capturing.is_some() {
            let problem = "waiting while work is captured".to_owned();
            return Err(KernelError::Device(problem));
        }
        state.check()
    }

    fn begin_capture(&self) -> Result<()> {
        let mut state = self.state();
        if state.capturing.is_some() {
            return Err(KernelError::Device("a capture in a capture".to_owned()));
        }
        state.capturing = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self) -> Result<u64> {
        let mut state = self.state();
        let steps = state.capturing.take().unwrap_or_default();
        let number = state.number();
        state.graphs.insert(number, steps);
        Ok(number)
    }

    fn launch_graph(&self, graph: u64) -> Result<()> {
        let steps = self.state().graphs.get(&graph).cloned();
        let steps = steps.ok_or_else(|| KernelError::Device("no such graph".to_owned()))?;
        steps.into_iter().try_for_each(|step| self.take(step))
    }

    fn free_graph(&self, graph: u64) -> Result<()> {
        self.state().graphs.remove(&graph);
        Ok(())
    }

    fn new_event(&self) -> Result<u64> {
        Ok(self.state().number())
    }

    fn record_event(&self, _event: u64) -> Result<()> {
        Ok(())
    }

    fn wait_event(&self, _event: u64) -> Result<()> {
        self.state().check()
    }

    fn free_event(&self, _event: u64) -> Result<()> {
        Ok(())
    }

    fn elapsed(&self, _start: u64, _end: u64) -> Result<f32> {
        Ok(0.0)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let left: Vec<u64> = self.state().buffers.keys().copied().collect();
        for address in left {
            let _ = self.free(address);
        }
    }
}
