-- purpose: The dataset files that the warehouse was made of, as they were then, and with what.
-- grain: one row per ingested file, and one for all models that were added at once; it stays when models are removed
-- columns: name: file name; mtime: time of its last change; size: in bytes, unpacked; sha256_header, sha256_samples:
--   checksums of its beginning and of samples, of the files that a virtual dataset reads included; all four but the name
--   of added models are of the dataset that they were extracted to (models.source_sha256 is of the models' files);
--   dtype: of its filters; n_filters; n_unclaimed: filters that no layer claims; n_nonfinite: filters with NaN or infinite
--   weights; n_outside: coefficients outside the range of the histograms, counted in the bins at its ends; ingested_at: in UTC;
--   warehouse_version, duckdb_version
-- example: select name, n_filters, ingested_at from sources
create table sources as
from lake_sources;
