//! The driver and cuBLAS, loaded when a device is opened.
#![expect(
    unsafe_code,
    reason = "the driver and cuBLAS are C libraries; every call of theirs is in this file"
)]

use super::backend::{Backend, Copy, Direction, Form, Launch, Product, Update};
use super::buffer::Kind;
use super::device::DeviceInfo;
use crate::error::{KernelError, Result};
use cudarc::cublas::sys as blas;
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::{Mutex, PoisonError};

/// The kernels for every architecture, as nvcc made them.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Scratch memory of cuBLAS: what it asks for on the newest devices it may be used with, and no
/// more allocation on its side, so that products can be captured.
const CUBLAS_WORKSPACE: usize = 32 << 20;

/// What is called of the driver that older ones lack (all else is as old as CUDA 11).
const NEWEST_CALLS: [&str; 3] = [
    "cuGraphInstantiateWithFlags",
    "cuEventElapsedTime_v2",
    "cuStreamBeginCapture_v2",
];

/// Calls the driver and turns its answer into a result.
macro_rules! driver {
    ($call:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: addresses given are live allocations of the size that is given with them, handles
        // are those that the driver gave us and were not destroyed yet, results go to locals.
        let status = unsafe { sys::$call($($argument),*) };
        check(status, stringify!($call))
    }};
}

/// Calls cuBLAS and turns its answer into a result.
macro_rules! cublas {
    ($call:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: as for the driver.
        let status = unsafe { blas::$call($($argument),*) };
        if status == blas::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            Ok(())
        } else {
            Err(KernelError::Device(format!("{}: {status:?}", stringify!($call))))
        }
    }};
}

/// One device with one stream.
pub(super) struct Driver {
    ordinal: usize,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    workspace: sys::CUdeviceptr,
    /// A handle serves one thread at a time.
    cublas: Mutex<blas::cublasHandle_t>,
    functions: Mutex<HashMap<String, Function>>,
}

#[derive(Clone, std::marker::Copy)]
struct Function(sys::CUfunction);

// SAFETY: the driver's handles may be used from any thread whose current context is theirs, which
// `enter` sees to; that of cuBLAS is behind a lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}
// SAFETY: a function's handle is as good in any thread.
unsafe impl Send for Function {}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{}", self.ordinal)
    }
}

fn check(status: sys::CUresult, call: &str) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: writes a pointer to a string that is never freed, or null.
    let known = unsafe { sys::cuGetErrorString(status, &mut text) };
    let text = if known == sys::CUresult::CUDA_SUCCESS && !text.is_null() {
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    } else {
        format!("{status:?}")
    };
    Err(KernelError::Device(format!("{call}: {text}")))
}

fn missing(problem: &str) -> KernelError {
    KernelError::Device(problem.to_owned())
}

/// Loads the driver.
fn load_driver() -> Result<()> {
    // SAFETY: opens a library by its name.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing(
            "no NVIDIA driver on this machine: libcuda.so.1 is not found",
        ));
    }
    for name in NEWEST_CALLS {
        // SAFETY: looks a name up; it is not called as this type.
        let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
        if found.is_err() {
            let problem = format!(
                "the NVIDIA driver is too old: it has no {name}; one for CUDA 12.8 or later is needed"
            );
            return Err(KernelError::Device(problem));
        }
    }
    driver!(cuInit(0))
}

fn load_cublas() -> Result<()> {
    // SAFETY: opens a library by its name.
    if unsafe { blas::is_culib_present() } {
        return Ok(());
    }
    Err(missing(
        "cuBLAS is not found (libcublas.so.13 or libcublas.so.12): install CUDA's runtime libraries \
         and put their folder on LD_LIBRARY_PATH",
    ))
}

impl Driver {
    pub(super) fn count() -> Result<usize> {
        load_driver()?;
        let mut count = 0;
        driver!(cuDeviceGetCount(&mut count))?;
        Ok(count.max(0) as usize)
    }

    pub(super) fn open(ordinal: usize) -> Result<Self> {
        let count = Self::count()?;
        if ordinal >= count {
            let problem = format!("no device cuda:{ordinal}: this machine has {count}");
            return Err(KernelError::Device(problem));
        }
        load_cublas()?;
        let mut device = 0;
        driver!(cuDeviceGet(&mut device, ordinal as i32))?;
        let mut context = std::ptr::null_mut();
        driver!(cuDevicePrimaryCtxRetain(&mut context, device))?;
        driver!(cuCtxSetCurrent(context))?;
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        driver!(cuStreamCreate(&mut stream, flags))?;
        let module = load_module(device)?;
        let mut workspace = 0;
        driver!(cuMemAlloc_v2(&mut workspace, CUBLAS_WORKSPACE))?;
        let mut handle = std::ptr::null_mut();
        cublas!(cublasCreate_v2(&mut handle))?;
        cublas!(cublasSetStream_v2(handle, stream.cast()))?;
        let address = workspace as *mut c_void;
        cublas!(cublasSetWorkspace_v2(handle, address, CUBLAS_WORKSPACE))?;
        Ok(Self {
            ordinal,
            device,
            context,
            stream,
            module,
            workspace,
            cublas: Mutex::new(handle),
            functions: Mutex::default(),
        })
    }

    /// Makes the device the calling thread's.
    fn enter(&self) -> Result<()> {
        driver!(cuCtxSetCurrent(self.context))
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<u32> {
        let mut value = 0;
        driver!(cuDeviceGetAttribute(&mut value, attribute, self.device))?;
        Ok(value.max(0) as u32)
    }

    fn function(&self, name: &str) -> Result<Function> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(name) {
            return Ok(function);
        }
        let text = CString::new(name).map_err(|_| missing("a kernel's name with a zero byte"))?;
        let mut handle = std::ptr::null_mut();
        driver!(cuModuleGetFunction(&mut handle, self.module, text.as_ptr()))
            .map_err(|error| KernelError::Device(format!("kernel {name}: {error}")))?;
        functions.insert(name.to_owned(), Function(handle));
        Ok(Function(handle))
    }
}

fn load_module(device: sys::CUdevice) -> Result<sys::CUmodule> {
    if KERNELS.is_empty() {
        return Err(missing(
            "this program was built without its kernels: build it again without \
             AUTODIDACT_WITHOUT_KERNELS in the environment",
        ));
    }
    // The driver reads the file in words.
    let mut words = vec![0u64; KERNELS.len().div_ceil(8)];
    for (word, bytes) in words.iter_mut().zip(KERNELS.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    let mut module = std::ptr::null_mut();
    driver!(cuModuleLoadData(&mut module, words.as_ptr().cast())).map_err(|error| {
        let problem = format!(
            "device {device}: its architecture has no kernels here (there are those of compute \
             capability 8.0, 8.6, 8.9, 9.0 and later): {error}"
        );
        KernelError::Device(problem)
    })?;
    Ok(module)
}

impl Backend for Driver {
    fn info(&self) -> Result<DeviceInfo> {
        use sys::CUdevice_attribute_enum as Attribute;
        self.enter()?;
        let mut name = [0; 128];
        driver!(cuDeviceGetName(name.as_mut_ptr(), 128, self.device))?;
        let bytes: Vec<u8> = name
            .iter()
            .take_while(|&&c| c != 0)
            .map(|&c| c as u8)
            .collect();
        let mut version = 0;
        driver!(cuDriverGetVersion(&mut version))?;
        let version = version.max(0) as u32;
        let major = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(DeviceInfo {
            name: String::from_utf8_lossy(&bytes).into_owned(),
            compute_capability: (major, minor),
            driver_version: (version / 1000, version % 1000 / 10),
            total_bytes: self.memory()?.1,
            multiprocessors: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            emulated: false,
        })
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        driver!(cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free as u64, total as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = 0;
        driver!(cuMemAlloc_v2(&mut address, bytes)).map_err(|error| match self.memory() {
            Ok((free, total)) if bytes as u64 > free => KernelError::DeviceMemory {
                op: "cuda",
                needed: bytes as u64,
                free,
                total,
            },
            _ => error,
        })?;
        Ok(address)
    }

    fn free(&self, address: u64) -> Result<()> {
        self.enter()?;
        driver!(cuMemFree_v2(address))
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = std::ptr::null_mut();
        driver!(cuMemHostAlloc(&mut address, bytes, 0))?;
        Ok(address as u64)
    }

    fn free_pinned(&self, address: u64) -> Result<()> {
        self.enter()?;
        driver!(cuMemFreeHost(address as *mut c_void))
    }

    fn copy(&self, copy: Copy) -> Result<()> {
        self.enter()?;
        let Copy {
            from, to, bytes, ..
        } = copy;
        if bytes == 0 {
            return Ok(());
        }
        match copy.direction {
            Direction::ToDevice => {
                let from = from as *const c_void;
                driver!(cuMemcpyHtoDAsync_v2(to, from, bytes, self.stream))
            }
            Direction::ToHost => {
                let to = to as *mut c_void;
                driver!(cuMemcpyDtoHAsync_v2(to, from, bytes, self.stream))
            }
        }
    }

    fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        if bytes == 0 {
            return Ok(());
        }
        driver!(cuMemsetD8Async(address, byte, bytes, self.stream))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.enter()?;
        let function = self.function(&launch.kernel)?;
        let mut arguments: Vec<*mut c_void> = launch
            .arguments
            .iter()
            .map(|words| words.as_ptr().cast_mut().cast())
            .collect();
        let [x, y, z] = launch.grid;
        driver!(cuLaunchKernel(
            function.0,
            x,
            y,
            z,
            launch.threads,
            1,
            1,
            0,
            self.stream,
            arguments.as_mut_ptr(),
            std::ptr::null_mut()
        ))
        .map_err(|error| KernelError::Device(format!("kernel {}: {error}", launch.kernel)))
    }

    fn product(&self, product: &Product) -> Result<()> {
        self.enter()?;
        let kind = match product.kind {
            Kind::F32 => blas::cudaDataType_t::CUDA_R_32F,
            Kind::F16 => blas::cudaDataType_t::CUDA_R_16F,
            _ => blas::cudaDataType_t::CUDA_R_16BF,
        };
        let kept = f32::from(u8::from(product.update == Update::Add));
        let (straight, transposed) = (
            blas::cublasOperation_t::CUBLAS_OP_N,
            blas::cublasOperation_t::CUBLAS_OP_T,
        );
        // cuBLAS counts columns first: it sees everything transposed, and makes c's transpose of
        // b's times a's.
        let (of_b, of_a) = match product.form {
            Form::ABt => (transposed, straight),
            Form::AB => (straight, straight),
            Form::AtB => (straight, transposed),
        };
        let handle = self.cublas.lock().unwrap_or_else(PoisonError::into_inner);
        cublas!(cublasGemmEx(
            *handle,
            of_b,
            of_a,
            product.n as i32,
            product.m as i32,
            product.k as i32,
            std::ptr::from_ref(&product.scale).cast(),
            product.b as *const c_void,
            kind,
            product.b_stride as i32,
            product.a as *const c_void,
            kind,
            product.a_stride as i32,
            std::ptr::from_ref(&kept).cast(),
            product.c as *mut c_void,
            blas::cudaDataType_t::CUDA_R_32F,
            product.c_stride as i32,
            blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT
        ))
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        driver!(cuStreamSynchronize(self.stream))
    }

    fn begin_capture(&self) -> Result<()> {
        self.enter()?;
        // Other threads may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        driver!(cuStreamBeginCapture_v2(self.stream, mode))
    }

    fn end_capture(&self) -> Result<u64> {
        self.enter()?;
        let mut graph = std::ptr::null_mut();
        driver!(cuStreamEndCapture(self.stream, &mut graph))?;
        let mut ready = std::ptr::null_mut();
        let made = driver!(cuGraphInstantiateWithFlags(&mut ready, graph, 0));
        driver!(cuGraphDestroy(graph))?;
        made?;
        Ok(ready as u64)
    }

    fn launch_graph(&self, graph: u64) -> Result<()> {
        self.enter()?;
        driver!(cuGraphLaunch(graph as sys::CUgraphExec, self.stream))
    }

    fn free_graph(&self, graph: u64) -> Result<()> {
        self.enter()?;
        driver!(cuGraphExecDestroy(graph as sys::CUgraphExec))
    }

    fn new_event(&self) -> Result<u64> {
        self.enter()?;
        let mut event = std::ptr::null_mut();
        driver!(cuEventCreate(&mut event, 0))?;
        Ok(event as u64)
    }

    fn record_event(&self, event: u64) -> Result<()> {
        self.enter()?;
        driver!(cuEventRecord(event as sys::CUevent, self.stream))
    }

    fn wait_event(&self, event: u64) -> Result<()> {
        self.enter()?;
        driver!(cuEventSynchronize(event as sys::CUevent))
    }

    fn free_event(&self, event: u64) -> Result<()> {
        self.enter()?;
        driver!(cuEventDestroy_v2(event as sys::CUevent))
    }

    fn elapsed(&self, start: u64, end: u64) -> Result<f32> {
        self.enter()?;
        let mut milliseconds = 0.0;
        let (start, end) = (start as sys::CUevent, end as sys::CUevent);
        driver!(cuEventElapsedTime_v2(&mut milliseconds, start, end))?;
        Ok(milliseconds)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure; the process's end frees what stays.
        let handle = *self
            .cublas
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let _ = self.enter();
        let _ = cublas!(cublasDestroy_v2(handle));
        let _ = driver!(cuMemFree_v2(self.workspace));
        let _ = driver!(cuModuleUnload(self.module));
        let _ = driver!(cuStreamDestroy_v2(self.stream));
        let _ = driver!(cuDevicePrimaryCtxRelease_v2(self.device));
    }
}
