"""One file per way to compute a block; :mod:`binarynet.cuda.blocks` says what a method is."""
