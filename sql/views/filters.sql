-- purpose: The single filters, straight from the Parquet files. Needs the folder of the warehouse as the working
--   directory, or: set file_search_path = '<folder>'
-- grain: one row per 3x3 filter
-- columns: filter_id: its position in the source; layer_id; model_id; w0 .. w8: FLOAT, the kernel row by row
-- nulls: layer_id and model_id of filters that no layer claims
-- example: select * from filters where model_id = 0 limit 5
create view filters as
select
    filter_id,
    layer_id,
    -- from the last folder only: a folder of the user's may be called model_id=... too
    try_cast(regexp_extract(filename, 'model_id=(-?[0-9]+)/[^/]*$', 1) as integer) as model_id,
    w0, w1, w2, w3, w4, w5, w6, w7, w8
from lake_filters;
