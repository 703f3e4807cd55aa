//! A device, its graphs and its events.

use super::backend::Backend;
use crate::error::Result;
use std::sync::Arc;

/// An NVIDIA device, or its emulation; cheap to clone, usable from any thread. All work goes in one
/// order.
#[derive(Debug, Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What its maker calls it.
    pub name: String,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// CUDA version of the driver, major and minor.
    pub driver_version: (u32, u32),
    /// Bytes of memory.
    pub total_bytes: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Whether this is the emulator.
    pub emulated: bool,
}

impl Device {
    /// The device with this number.
    ///
    /// # Errors
    /// No driver or no cuBLAS on this machine, no such device, or one that the kernels were not
    /// compiled for: says which, and what would help.
    #[cfg(feature = "cuda")]
    pub fn open(ordinal: usize) -> Result<Self> {
        let backend = Arc::new(super::driver::Driver::open(ordinal)?);
        Ok(Self { backend })
    }

    /// Without the feature `cuda` there is no device.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub fn open(ordinal: usize) -> Result<Self> {
        Err(crate::KernelError::Device(format!(
            "cuda:{ordinal}: this program was built without the feature `cuda`"
        )))
    }

    /// How many devices this machine has.
    ///
    /// # Errors
    /// No driver.
    #[cfg(feature = "cuda")]
    pub fn count() -> Result<usize> {
        super::driver::Driver::count()
    }

    /// Without the feature `cuda` there is no device.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "cuda"))]
    pub fn count() -> Result<usize> {
        Ok(0)
    }

    /// The emulator: kernels run on the host, one thread after the other, and say where they break
    /// a rule. For tests.
    #[cfg(feature = "cuda-emulator")]
    pub fn emulated() -> Self {
        let backend = Arc::new(super::emulated::Emulator::default());
        Self { backend }
    }

    /// The emulator, doing everything as late as a device may: when somebody waits for it. Shows
    /// who reads an answer, or writes over what is still to be copied, too early.
    #[cfg(feature = "cuda-emulator")]
    pub fn emulated_late() -> Self {
        let backend = Arc::new(super::emulated::Emulator::late());
        Self { backend }
    }

    /// What the device is.
    ///
    /// # Errors
    /// The driver failed.
    pub fn info(&self) -> Result<DeviceInfo> {
        self.backend.info()
    }

    /// Bytes of memory that are free, and all.
    ///
    /// # Errors
    /// The driver failed.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.backend.memory()
    }

    /// Waits for everything given to the device so far.
    ///
    /// # Errors
    /// Something that was started before failed.
    pub fn synchronize(&self) -> Result<()> {
        self.backend.synchronize()
    }

    /// Records what `work` gives to the device, without doing it: every operation but those that
    /// wait or allocate.
    ///
    /// # Errors
    /// Those of `work`; something in it cannot be captured.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.backend.begin_capture()?;
        let done = work();
        // Ended even if the work failed, and freed then.
        let graph = Graph {
            device: self.clone(),
            graph: self.backend.end_capture()?,
        };
        done.map(|()| graph)
    }

    /// A mark in the order of the work.
    ///
    /// # Errors
    /// The driver failed.
    pub fn event(&self) -> Result<Event> {
        Ok(Event {
            device: self.clone(),
            event: self.backend.new_event()?,
        })
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}

/// Captured work. The buffers it names must live as long; it reads what they hold when it runs.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    graph: u64,
}

impl Graph {
    /// Starts the work.
    ///
    /// # Errors
    /// The driver failed.
    pub fn launch(&self) -> Result<()> {
        self.device.backend.launch_graph(self.graph)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.device.backend.free_graph(self.graph);
    }
}

/// A mark in the order of the work.
#[derive(Debug)]
pub struct Event {
    device: Device,
    event: u64,
}

impl Event {
    /// Sets the mark behind everything given to the device so far.
    ///
    /// # Errors
    /// The driver failed.
    pub fn record(&self) -> Result<()> {
        self.device.backend.record_event(self.event)
    }

    /// Waits until everything before the mark is done.
    ///
    /// # Errors
    /// Something before it failed.
    pub fn wait(&self) -> Result<()> {
        self.device.backend.wait_event(self.event)
    }

    /// Milliseconds from this mark to a later one.
    ///
    /// # Errors
    /// One was never recorded or is not reached yet.
    pub fn until(&self, later: &Self) -> Result<f32> {
        self.device.backend.elapsed(self.event, later.event)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.device.backend.free_event(self.event);
    }
}
