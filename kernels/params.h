// Launch-parameter structs, and the constants on which a launcher and its kernel must agree: one header per kernel
// family.
//
// These headers are the only definition of both. A kernel includes the header of its family; `make params` runs bindgen
// on this file to generate src/cuda/launch/params.rs for the launchers. Every struct is passed by value as the only
// parameter of a kernel. Its 8-byte members come first, so that it has no padding.
#ifndef IRONWARP_PARAMS_H
#define IRONWARP_PARAMS_H

#include "params/embedding.h"
#include "params/layernorm.h"
#include "params/matmul.h"
#include "params/gelu.h"
#include "params/cross_entropy.h"
#include "params/grad_norm.h"
#include "params/adamw.h"
#include "params/attention.h"
#include "params/attention_decode.h"
#include "params/sampling.h"
#include "params/ceilings.h"

#endif
