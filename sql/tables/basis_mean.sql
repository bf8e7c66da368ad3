-- purpose: The mean of all scaled filters, subtracted before they are projected on the basis.
-- grain: one row
-- columns: n: filters it is the mean of; mean: DOUBLE[9], weights row by row
-- example: from basis_mean
create table basis_mean as
select n, mean::double[9] as mean
from lake_basis_mean;
