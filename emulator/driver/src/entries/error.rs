//! Names and descriptions of result codes.

use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

use crate::boundary::{Out, Text};
use crate::codes;
use crate::error::ensure;
use crate::export::exports;

exports! {
    fn cuGetErrorName(error: u32, out: Out<Text>) {
        let row = codes::find(error);
        out.set(row.map_or(Text::NULL, |row| Text::from(row.1)))?;
        ensure!(row.is_some(), CUDA_ERROR_INVALID_VALUE, "{error} is not a known result code");
    }

    fn cuGetErrorString(error: u32, out: Out<Text>) {
        let row = codes::find(error);
        out.set(row.map_or(Text::NULL, |row| Text::from(row.2)))?;
        ensure!(row.is_some(), CUDA_ERROR_INVALID_VALUE, "{error} is not a known result code");
    }
}
