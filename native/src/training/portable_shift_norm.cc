// Shift-based batch normalization in plain C++: the definition of what the other kernels compute.
#include "shift_norm_loops.h"

namespace binarynet::training {

const ShiftNormKernels kPortableShiftNorm = {shift_norm_forward, shift_norm_backward};

}  // namespace binarynet::training
