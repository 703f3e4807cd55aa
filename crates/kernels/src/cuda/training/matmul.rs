//! Dense products in any form.

use super::super::backend::{Form, Product, Update};
use super::super::buffer::{Kind, Matrix};
use super::super::device::Device;
use super::super::elementwise::F32;
use crate::error::{KernelError, Result};

/// Operands of [`matmul`].
#[derive(Debug, Clone, Copy)]
pub struct MatMul<'a> {
    /// f32, f16 or bf16; as `form` says.
    pub a: Matrix<'a>,
    /// Of a's type; as `form` says.
    pub b: Matrix<'a>,
    /// (m, n), f32.
    pub c: Matrix<'a>,
    /// How a and b lie.
    pub form: Form,
    /// m, n, k.
    pub shape: (usize, usize, usize),
    /// What the product is multiplied with.
    pub scale: f32,
    /// Whether c is added to.
    pub update: Update,
}

/// c = or += scale * a b, with sums in f32 whatever the operands are; f32 operands are multiplied
/// as f32.
///
/// # Errors
/// Operands of another shape or type.
pub fn matmul(device: &Device, x: &MatMul<'_>) -> Result<()> {
    let op = "matmul";
    let (m, n, k) = x.shape;
    let (of_a, of_b) = match x.form {
        Form::ABt => ((m, k), (n, k)),
        Form::AB => ((m, k), (k, n)),
        Form::AtB => ((k, m), (k, n)),
    };
    let kinds = [Kind::F32, Kind::F16, Kind::BF16];
    x.a.check(op, "a", &kinds, of_a)?;
    x.b.check(op, "b", &[x.a.kind()], of_b)?;
    x.c.check(op, "c", F32, (m, n))?;
    if m == 0 {
        return Ok(());
    }
    if k == 0 {
        let problem = format!("no column to sum over in a product of {:?}", x.shape);
        return Err(KernelError::Invalid { op, problem });
    }
    device.backend().product(&Product {
        a: x.a.address(),
        b: x.b.address(),
        kind: x.a.kind(),
        c: x.c.address(),
        form: x.form,
        m,
        n,
        k,
        a_stride: x.a.stride(),
        b_stride: x.b.stride(),
        c_stride: x.c.stride(),
        scale: x.scale,
        update: x.update,
    })
}
