-- purpose: The files that the last commit named, as it wrote them.
-- grain: one row per file
-- columns: those of table files; what is NULL there, which no commit writes, as a value that no file has
select
    coalesce(name, '')::varchar as name,
    coalesce(path, '')::varchar as path,
    coalesce(n_rows, -1)::bigint as n_rows,
    coalesce(bytes, -1)::bigint as bytes,
    coalesce(sha256, '')::varchar as sha256
from warehouse.files
order by rowid;
