//! Which instructions this process may use.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the tile registers are asked of the kernel")
)]

use std::sync::OnceLock;

/// Whether the 512-bit integer kernels (AVX-512 F, BW, VL, DQ, VNNI) run here.
pub(super) fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether 8-bit tile products (AMX) run here and the kernel lets this process use them.
pub(super) fn has_amx() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| has_vnni() && request_amx())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_amx() -> bool {
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    let leaf = core::arch::x86_64::__cpuid_count(7, 0).edx;
    if leaf & AMX_TILE == 0 || leaf & AMX_INT8 == 0 {
        return false;
    }
    // SAFETY: asks for permission to use a register file; touches no memory of ours.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn request_amx() -> bool {
    false
}
