//! See [`crate::ops::MatmulForward`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::model::config::Config;
use crate::ops::{self, Backend, Floor, Operation, Write};
use crate::tensor::{Storage, Tensor};

const SIZES: &[&str] = &["n", "c", "oc"];
const REFERENCE: &[(&str, usize)] = &[("n", 512), ("oc", 4096)];
/// Standard deviation of the weights, chosen so that outputs have a standard deviation near 1 for C near 1024.
const WEIGHT_DEVIATION: f32 = 0.03125;

/// (C, OC, epilogue) of a model's matmuls: QKV, attention projection, both of the MLP, and the tied head.
fn layers(config: &Config) -> [(usize, usize, &'static str); 5] {
    let c = config.channels;
    [
        (c, 3 * c, "bias"),
        (c, c, "bias_residual"),
        (c, 4 * c, "bias_gelu"),
        (4 * c, c, "bias_residual"),
        (c, config.padded_vocab(), "none"),
    ]
}

/// One shape for each matmul of a model, with the variant that `variant` derives from its epilogue.
fn layer_shapes(workload: &Workload, variant: fn(&'static str) -> &'static str) -> Vec<CaseShape> {
    let n = workload.rows();
    layers(&workload.config).into_iter().map(|(c, oc, epilogue)| (vec![n, c, oc], variant(epilogue))).collect()
}

pub struct MatmulForward<S: Storage> {
    x: Tensor<S, S::Compute>,
    weight: Tensor<S, S::Compute>,
    bias: Tensor<S, S::Compute>,
    /// `pre` of the variant `bias_gelu`, `residual` of the variant `bias_residual`.
    epilogue_operand: Option<Tensor<S, S::Compute>>,
    out: Tensor<S, S::Compute>,
    variant: &'static str,
}

impl<S: Storage> MatmulForward<S> {
    pub(in crate::bench) fn op(&mut self) -> ops::MatmulForward<'_, S> {
        let bias = self.bias.view();
        let epilogue = match (self.variant, &mut self.epilogue_operand) {
            ("bias", _) => ops::Epilogue::Bias { bias },
            ("bias_gelu", Some(pre)) => ops::Epilogue::BiasGelu { bias, pre: pre.view_mut() },
            ("bias_residual", Some(residual)) => ops::Epilogue::BiasResidual { bias, residual: residual.view() },
            _ => ops::Epilogue::None,
        };
        ops::MatmulForward { x: self.x.view(), weight: self.weight.view(), epilogue, out: self.out.view_mut() }
    }
}

impl<B: Backend> Case<B> for MatmulForward<B> {
    const INFO: Info = Info {
        op: ops::MatmulForward::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &["none", "bias", "bias_gelu", "bias_residual"],
        bound: Bound::Compute,
        training: |workload| layer_shapes(workload, |epilogue| epilogue),
        small: &[
            (&[256, 256, 256], "none"),
            (&[256, 256, 256], "bias"),
            (&[256, 256, 256], "bias_gelu"),
            (&[256, 256, 256], "bias_residual"),
            // The smallest shape for which the CUDA backend chooses large tiles; so are the last shapes below.
            (&[2048, 64, 1088], "bias_gelu"),
        ],
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let ([n, c, oc], variant) = (problem.get(), problem.variant);
        Ok(Self {
            x: data.normal([n, c], 1.0)?,
            weight: data.normal([oc, c], WEIGHT_DEVIATION)?,
            bias: data.normal([oc], 0.5)?,
            epilogue_operand: match variant {
                "bias_gelu" | "bias_residual" => Some(data.normal([n, oc], 1.0)?),
                _ => None,
            },
            out: data.zeros([n, oc])?,
            variant,
        })
    }

    through_op!(matmul_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        let outputs = outputs.float("out", &self.out)?;
        match &self.epilogue_operand {
            Some(pre) if self.variant == "bias_gelu" => outputs.float("pre", pre),
            _ => Ok(outputs),
        }
    }
}

pub struct MatmulDgrad<S: Storage> {
    dout: Tensor<S, S::Compute>,
    weight: Tensor<S, S::Compute>,
    /// The pre-activation of the variant `dgelu`.
    pre: Option<Tensor<S, S::Compute>>,
    dx: Tensor<S, S::Compute>,
}

impl<S: Storage> MatmulDgrad<S> {
    pub(in crate::bench) fn op(&mut self) -> ops::MatmulDgrad<'_, S> {
        let epilogue = match &self.pre {
            Some(pre) => ops::DgradEpilogue::DGelu { pre: pre.view() },
            None => ops::DgradEpilogue::None,
        };
        ops::MatmulDgrad { dout: self.dout.view(), weight: self.weight.view(), epilogue, dx: self.dx.view_mut() }
    }
}

impl<B: Backend> Case<B> for MatmulDgrad<B> {
    const INFO: Info = Info {
        op: ops::MatmulDgrad::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &["none", "dgelu"],
        bound: Bound::Compute,
        training: |workload| {
            // The input of the MLP's second matmul is an activation.
            let second = (4 * workload.config.channels, workload.config.channels);
            let mut problems = layer_shapes(workload, |_| "none");
            problems.iter_mut().filter(|(sizes, _)| (sizes[1], sizes[2]) == second).for_each(|(_, v)| *v = "dgelu");
            problems
        },
        small: &[(&[256, 256, 256], "none"), (&[256, 256, 256], "dgelu"), (&[2048, 1088, 64], "dgelu")],
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n, c, oc] = problem.get();
        Ok(Self {
            dout: data.normal([n, oc], 1.0)?,
            weight: data.normal([oc, c], WEIGHT_DEVIATION)?,
            pre: if problem.variant == "dgelu" { Some(data.normal([n, c], 1.0)?) } else { None },
            dx: data.zeros([n, c])?,
        })
    }

    through_op!(matmul_dgrad);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("dx", &self.dx)
    }
}

pub struct MatmulWgrad<S: Storage> {
    dout: Tensor<S, S::Compute>,
    x: Tensor<S, S::Compute>,
    dweight: Tensor<S, S::Accum>,
    pub(in crate::bench) dbias: Option<Tensor<S, S::Accum>>,
}

impl<S: Storage> MatmulWgrad<S> {
    pub(in crate::bench) fn op(&mut self) -> ops::MatmulWgrad<'_, S> {
        ops::MatmulWgrad {
            dout: self.dout.view(),
            x: self.x.view(),
            dweight: self.dweight.view_mut(),
            dbias: self.dbias.as_mut().map(Tensor::view_mut),
            write: Write::Accumulate,
        }
    }
}

impl<B: Backend> Case<B> for MatmulWgrad<B> {
    const INFO: Info = Info {
        op: ops::MatmulWgrad::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &["none", "bias"],
        bound: Bound::Compute,
        // Only the head has no bias.
        training: |workload| layer_shapes(workload, |epilogue| if epilogue == "none" { "none" } else { "bias" }),
        small: &[(&[256, 256, 256], "none"), (&[256, 256, 256], "bias"), (&[64, 2048, 1088], "bias")],
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n, c, oc] = problem.get();
        Ok(Self {
            dout: data.normal([n, oc], 1.0)?,
            x: data.normal([n, c], 1.0)?,
            dweight: data.normal([oc, c], 1.0)?,
            dbias: if problem.variant == "bias" { Some(data.normal([oc], 1.0)?) } else { None },
        })
    }

    through_op!(matmul_wgrad);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        let outputs = outputs.float("dweight", &self.dweight)?;
        match &self.dbias {
            Some(dbias) => outputs.float("dbias", dbias),
            None => Ok(outputs),
        }
    }
}
