-- purpose: A checksum of the weights of each layer: layers with the same one hold the same filters in the same order.
--   View duplicates finds them.
-- grain: one row per layer
-- columns: layer_id; sha256: of the weights as little-endian float32, filter by filter, each row by row, as 64
--   hexadecimal digits. In NumPy, of an array of shape (n, 9): hashlib.sha256(w.astype('<f4').tobytes()).hexdigest()
-- nulls: none; a layer with NaN or infinite weights has a checksum too
-- example: select layer_id, sha256 from layer_checksums limit 3
create table layer_checksums as
from lake_layer_checksums
order by layer_id;
