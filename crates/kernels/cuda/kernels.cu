// All kernels, as one unit.
#include "elementwise.cuh"
#include "linear.cuh"
#include "lora.cuh"
#include "attention.cuh"
#include "sample.cuh"
#include "training.cuh"
#include "training_attention.cuh"
