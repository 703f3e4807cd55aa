//! Compiles the kernels in cuda/: with nvcc for devices (feature `cuda`), with the C++ compiler
//! for the host (feature `cuda-emulator`).

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    #[cfg(feature = "cuda")]
    device();
    #[cfg(feature = "cuda-emulator")]
    emulator();
}

/// Set where Rust is checked and nothing is run: the kernels are an empty file, which no driver
/// loads, and nvcc is not needed.
#[cfg(feature = "cuda")]
const WITHOUT_KERNELS: &str = "AUTODIDACT_WITHOUT_KERNELS";

/// One file with code for every architecture: cubins for those below, PTX for what comes later.
#[cfg(feature = "cuda")]
fn device() {
    use std::path::PathBuf;
    use std::process::Command;

    const ARCHITECTURES: [u32; 4] = [80, 86, 89, 90];
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH", WITHOUT_KERNELS] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let home = ["CUDA_HOME", "CUDA_PATH"].iter().find_map(std::env::var_os);
    let nvcc = home.map_or(PathBuf::from("nvcc"), |home| {
        PathBuf::from(home).join("bin/nvcc")
    });
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if std::env::var_os(WITHOUT_KERNELS).is_some() {
        std::fs::write(out.join("kernels.fatbin"), []).expect("OUT_DIR can be written");
        return;
    }
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "--fatbin", "--threads", "0"]);
    command.args(["-Xptxas", "-v", "-Icuda"]);
    for architecture in ARCHITECTURES {
        command.arg(format!(
            "-gencode=arch=compute_{architecture},code=sm_{architecture}"
        ));
    }
    command.arg("-gencode=arch=compute_90,code=compute_90");
    command.arg("cuda/kernels.cu").arg("-o");
    command.arg(out.join("kernels.fatbin"));
    let run = command.output().unwrap_or_else(|error| {
        panic!(
            "{} cannot be run ({error}): the feature `cuda` needs NVIDIA's compiler, version 12 or \
             later; install the CUDA toolkit and set CUDA_HOME to it or put nvcc on the PATH",
            nvcc.display()
        )
    });
    let said = String::from_utf8_lossy(&run.stderr);
    // What the assembler says of registers and spills, for who wants to read it.
    std::fs::write(out.join("ptxas.log"), said.as_bytes()).expect("OUT_DIR can be written");
    assert!(run.status.success(), "{} failed:\n{said}", nvcc.display());
}

#[cfg(feature = "cuda-emulator")]
fn emulator() {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("cuda/emulator/emulator.cpp")
        .include("cuda")
        .define("EMULATOR", None)
        // Sums must be what the kernels say; kernels are slow enough without optimisation.
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .flag("-Wno-missing-field-initializers")
        .opt_level(2)
        .debug(false)
        .compile("kernels_emulator");
}
