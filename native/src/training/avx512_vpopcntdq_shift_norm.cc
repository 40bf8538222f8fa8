// Shift-based batch normalization, AVX-512: the compiler's vectors.
#include "shift_norm_loops.h"

namespace binarynet::training {

const ShiftNormKernels kAvx512VpopcntdqShiftNorm = {shift_norm_forward, shift_norm_backward};

}  // namespace binarynet::training
