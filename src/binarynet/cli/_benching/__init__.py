"""What `binarynet bench` is made of.

`measuring` times parties in turns, with `limits` (the machine's own, measured beside them); `parties` are our engines
and the peers; `suites` (of a `single` layer each), `networks`, `training`, `figure3` and `figure3_gpu` say what is
measured; `gpu` has the clock and peak of a GPU; `memory` runs a party in a process of its own; `document` and `text`
show results.
"""
