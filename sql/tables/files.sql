-- purpose: The files that belong to this warehouse. Any other file in its folder is a leftover that nobody reads.
-- grain: one row per Parquet file
-- columns: name: what it holds a part of; path: from the folder of the warehouse; n_rows; bytes; sha256
-- example: select name, count(*), sum(bytes) from files group by name
create table files (
    name varchar not null,
    path varchar not null,
    n_rows bigint not null,
    bytes bigint not null,
    sha256 varchar not null
);
