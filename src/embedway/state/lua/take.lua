-- Return what `read.lua` found, the digest first.
table.insert(found, 1, digest)
return found
