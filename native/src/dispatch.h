// The instruction sets of this build, and the choice among them.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace binarynet {

struct InstructionSet {
  const KernelSet* kernels;
  std::string why_not;  // "" if usable here
};

// Best first. The last one, "portable", is usable everywhere.
const std::vector<InstructionSet>& instruction_sets();

// `requested`: a name, or null for BINARYNET_FORCE_ISA (if set and not empty) or else the best one. A name
// that is unknown or unusable here throws: there is no falling back to another one.
const KernelSet& choose_kernels(const char* requested);

}  // namespace binarynet
