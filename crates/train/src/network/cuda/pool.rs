//! Memory of a device for arrays that come and go: what is given back is kept for the next array
//! of its size, and freed when memory runs out. What is in use is counted.

use crate::network::DeviceUse;
use crate::{Result, TrainError};
use half::bf16;
use kernels::KernelError;
use kernels::cuda::{Buffer, Device, Element, View};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Elements of the smallest array.
const SMALLEST: usize = 64;

/// Where arrays come from; a clone is the same pool.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: Device,
    /// Whether to fill arrays with NaN, so that reading one before it is written shows.
    poison: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that may be in use at once, if that is bounded.
    limit: Option<u64>,
    free: BTreeMap<(Type, usize), Vec<Memory>>,
    used: DeviceUse,
}

/// Types of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    F32,
    BF16,
    U32,
}

impl Type {
    fn bytes(self, len: usize) -> u64 {
        let each = match self {
            Self::F32 | Self::U32 => 4,
            Self::BF16 => 2,
        };
        each * len as u64
    }
}

#[derive(Debug)]
enum Memory {
    F32(Buffer<f32>),
    BF16(Buffer<bf16>),
    U32(Buffer<u32>),
}

impl Memory {
    fn new(device: &Device, kind: Type, len: usize) -> kernels::Result<Self> {
        Ok(match kind {
            Type::F32 => Self::F32(Buffer::zeros(device, len)?),
            Type::BF16 => Self::BF16(Buffer::zeros(device, len)?),
            Type::U32 => Self::U32(Buffer::zeros(device, len)?),
        })
    }

    fn fill(&mut self) -> kernels::Result<()> {
        fn write<T: Element>(buffer: &mut Buffer<T>, value: T) -> kernels::Result<()> {
            let values = vec![value; buffer.len()];
            buffer.write(0, &values)
        }
        match self {
            Self::F32(buffer) => write(buffer, f32::NAN),
            Self::BF16(buffer) => write(buffer, bf16::NAN),
            Self::U32(buffer) => write(buffer, u32::MAX),
        }
    }
}

/// An array's memory, given back when dropped. What was started with it may still run: all work
/// of a device goes in one order, so that whoever gets it next comes after.
#[derive(Debug)]
pub(super) struct Held {
    memory: Option<Memory>,
    kind: Type,
    len: usize,
    pool: Pool,
}

impl Pool {
    pub(super) fn new(device: &Device) -> Result<Self> {
        let inner = Inner {
            device: device.clone(),
            poison: device.info()?.emulated,
            state: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(super) fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Room for `len` elements, whatever they hold.
    ///
    /// # Errors
    /// No memory for it, even with everything that was kept freed: with the arithmetic.
    pub(super) fn take(&self, kind: Type, len: usize) -> Result<Held> {
        let len = size_class(len);
        let bytes = kind.bytes(len);
        let mut state = self.state();
        let within = |used: u64| state.limit.is_none_or(|limit| used + bytes <= limit);
        if !within(state.used.live) {
            return Err(self.exhausted(bytes, &state));
        }
        let kept = state.free.get_mut(&(kind, len)).and_then(Vec::pop);
        let mut memory = match kept {
            Some(memory) => {
                state.used.kept -= bytes;
                memory
            }
            None => self.allocate(&mut state, kind, len)?,
        };
        if self.inner.poison {
            memory.fill()?;
        }
        state.used.live += bytes;
        state.used.peak = state.used.peak.max(state.used.live);
        Ok(Held {
            memory: Some(memory),
            kind,
            len,
            pool: self.clone(),
        })
    }

    /// New memory; where there is none, once more after everything kept was freed.
    fn allocate(&self, state: &mut State, kind: Type, len: usize) -> Result<Memory> {
        let bytes = kind.bytes(len);
        let taken = state.used.live + state.used.kept;
        let fits = state.limit.is_none_or(|limit| taken + bytes <= limit);
        if fits && let Ok(memory) = Memory::new(self.device(), kind, len) {
            return Ok(memory);
        }
        state.free.clear();
        state.used.kept = 0;
        Memory::new(self.device(), kind, len).map_err(|error| match error {
            KernelError::DeviceMemory { .. } => self.exhausted(bytes, state),
            other => other.into(),
        })
    }

    fn exhausted(&self, needed: u64, state: &State) -> TrainError {
        let live = state.used.live;
        let free = match (state.limit, self.device().memory()) {
            (Some(limit), _) => limit.saturating_sub(live),
            (None, Ok((free, _))) => free,
            (None, Err(_)) => 0,
        };
        TrainError::DeviceMemory { needed, live, free }
    }

    /// Lets no more than `bytes` be in use.
    pub(super) fn limit(&self, bytes: u64) {
        self.state().limit = Some(bytes);
    }

    pub(super) fn used(&self) -> DeviceUse {
        self.state().used
    }

    /// Lets the peak be what is in use now.
    pub(super) fn begin_peak(&self) {
        let mut state = self.state();
        state.used.peak = state.used.live;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.inner.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sizes that are near each other become one, at most an eighth larger: packs differ in length.
fn size_class(len: usize) -> usize {
    let len = len.max(SMALLEST);
    let step = 1usize << (len.ilog2() - 3);
    len.next_multiple_of(step)
}

impl Held {
    pub(super) fn view(&self) -> View<'_> {
        match self.memory() {
            Memory::F32(buffer) => buffer.view(),
            Memory::BF16(buffer) => buffer.view(),
            Memory::U32(buffer) => buffer.view(),
        }
    }

    /// Values from `start` on, which must be f32.
    pub(super) fn read(&self, start: usize, len: usize) -> Result<Vec<f32>> {
        match self.memory() {
            Memory::F32(buffer) => Ok(buffer.read_range(start..start + len)?),
            Memory::BF16(_) | Memory::U32(_) => Err(Self::other_type()),
        }
    }

    pub(super) fn write_floats(&mut self, values: &[f32]) -> Result<()> {
        match &mut self.memory {
            Some(Memory::F32(buffer)) => Ok(buffer.write(0, values)?),
            _ => Err(Self::other_type()),
        }
    }

    pub(super) fn write_numbers(&mut self, values: &[u32]) -> Result<()> {
        match &mut self.memory {
            Some(Memory::U32(buffer)) => Ok(buffer.write(0, values)?),
            _ => Err(Self::other_type()),
        }
    }

    fn other_type() -> TrainError {
        let problem = "an array of another type".to_owned();
        let op = "array";
        KernelError::Invalid { op, problem }.into()
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let bytes = self.kind.bytes(self.len);
        state.used.live -= bytes;
        if let Some(memory) = self.memory.take() {
            state.used.kept += bytes;
            let same = state.free.entry((self.kind, self.len)).or_default();
            same.push(memory);
        }
    }
}

#[cfg(all(test, feature = "cuda-emulator"))]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_classes_that_are_little_larger() {
        for len in [0, 1, 64, 65, 100, 1000, 2048 * 14336, 131 * 128_256] {
            let class = size_class(len);
            assert!(class >= len.max(SMALLEST) && class <= len.max(SMALLEST) * 9 / 8);
            assert_eq!(size_class(class), class);
        }
        assert_eq!(size_class(2048 * 4096), 2048 * 4096);
        assert_eq!(size_class(2048 * 14336), 2048 * 14336);
    }

    #[test]
    fn memory_is_kept_and_counted() {
        let pool = Pool::new(&Device::emulated()).unwrap();
        let first = pool.take(Type::F32, 1024).unwrap();
        let second = pool.take(Type::BF16, 1024).unwrap();
        let used = |live, peak, kept| DeviceUse { live, peak, kept };
        assert_eq!(pool.used(), used(6144, 6144, 0));
        drop(first);
        assert_eq!(pool.used(), used(2048, 6144, 4096));
        let again = pool.take(Type::F32, 1020).unwrap();
        assert_eq!(pool.used(), used(6144, 6144, 0));
        let other = pool.take(Type::U32, 1024).unwrap();
        assert_eq!(pool.used(), used(10_240, 10_240, 0));
        drop((again, other, second));
        pool.begin_peak();
        assert_eq!(pool.used(), used(0, 0, 10_240));
    }

    #[test]
    fn what_was_kept_is_freed_before_memory_is_said_to_be_out() {
        let pool = Pool::new(&Device::emulated()).unwrap();
        pool.limit(10_000);
        drop(pool.take(Type::F32, 2048).unwrap());
        assert_eq!(pool.used().kept, 8192);
        let held = pool.take(Type::F32, 1024).unwrap();
        assert_eq!((pool.used().live, pool.used().kept), (4096, 0));
        let error = pool.take(Type::F32, 2048).unwrap_err().to_string();
        for number in ["8192", "4096", "5904"] {
            assert!(error.contains(number), "{error}");
        }
        drop(held);
        pool.take(Type::F32, 2048).unwrap();
    }

    #[test]
    fn arrays_hold_no_old_values() {
        let pool = Pool::new(&Device::emulated()).unwrap();
        let mut held = pool.take(Type::F32, 64).unwrap();
        held.write_floats(&[1.0; 64]).unwrap();
        drop(held);
        let again = pool.take(Type::F32, 64).unwrap();
        assert!(again.read(0, 64).unwrap().iter().all(|x| x.is_nan()));
    }
}
