-- Return the keys that `read.lua` read, the digest first.
table.insert(found, 1, digest)
return found
