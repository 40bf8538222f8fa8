"""What `binarynet bench` is made of.

`measuring` times parties in turns, with `limits` (the machine's own, measured beside them); `parties` are our engines
and the peers; `suites` (of a `single` layer each), `networks`, `training` and `figure3` say what is measured; `memory`
runs a party in a process of its own; `document` and `text` show results.
"""
