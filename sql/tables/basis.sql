-- purpose: Principal components of all scaled filters: the coordinates in which distributions are compared.
-- grain: one row per component, falling eigenvalue
-- columns: component: 0 .. 8; eigenvalue: variance along it; explained_variance_ratio: its share of the variance, the
--   weight of the component in drift; loading: DOUBLE[9], the component as 3x3 weights row by row, length 1, the
--   entry with the largest magnitude positive, the first of those that tie
-- example: select component, explained_variance_ratio from basis
create table basis as
select component, eigenvalue, explained_variance_ratio, loading::double[9] as loading
from lake_basis
order by component;
