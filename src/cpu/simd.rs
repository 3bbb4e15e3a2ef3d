//! Loops compiled for the vector instructions of the processor that runs them.
//!
//! A program for x86-64 may use SSE2 only, unless it asks the processor for more. [`vectorised!`] compiles a function
//! three times, for AVX-512, for AVX2 and for what every processor of the target has, and selects one when it is called.
//! Rust rounds every operation by itself and never fuses a product with a sum, so all three give the same bits.

/// The widest vector instructions of this processor that functions are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The level of this processor. The standard library asks the processor once.
    #[inline]
    pub fn get() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                let avx512 = has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw");
                return if avx512 { Level::Avx512 } else { Level::Avx2 };
            }
        }
        Level::Portable
    }
}

/// Compiles functions over `R: Real` for every [`Level`]. What a function calls must be `#[inline(always)]`, or it is
/// compiled for [`Level::Portable`].
macro_rules! vectorised {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident<R: Real>($($arg:ident: $type:ty),* $(,)?)
        $(-> $result:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        #[allow(unsafe_code)]
        $visibility fn $name<R: Real>($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn portable<R: Real>($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<R: Real>($($arg: $type),*) $(-> $result)? {
                portable($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
            fn avx512<R: Real>($($arg: $type),*) $(-> $result)? {
                portable($($arg),*)
            }

            match $crate::cpu::simd::Level::get() {
                $crate::cpu::simd::Level::Portable => portable($($arg),*),
                // SAFETY: the processor has the instructions of its level.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    )*};
}

pub(super) use vectorised;

/// Elements of a row-wise loop that one thread computes before another thread is worth its start, a few microseconds.
const GRAIN: usize = 1 << 13;

/// Rows of `c` elements that a parallel task has at least.
pub(super) fn min_rows(c: usize) -> usize {
    (GRAIN / c).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::real::{Real, sum};

    /// A sum of products and an exponential, which fused multiply-adds would round differently.
    #[inline(always)]
    fn sum_of_products<R: Real>(a: &[R], b: &[R]) -> R {
        sum(a.len(), |i| (a[i] * b[i] - b[i]).fast_exp() + a[i] * a[i])
    }

    vectorised! {
        fn vector<R: Real>(a: &[R], b: &[R]) -> R {
            sum_of_products(a, b)
        }
    }

    #[test]
    fn every_level_gives_the_bits_of_the_portable_code() {
        for n in 0..200 {
            let [a, b] = [3.7, 2.3].map(|step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>());
            assert_eq!(vector(&a, &b).to_bits(), sum_of_products(&a, &b).to_bits(), "{n} elements");
            let [a, b] = [a, b].map(|x| x.into_iter().map(f64::from).collect::<Vec<_>>());
            assert_eq!(vector(&a, &b).to_bits(), sum_of_products(&a, &b).to_bits(), "{n} elements in f64");
        }
    }
}
