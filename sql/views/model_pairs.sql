-- purpose: Robust models and the normal models that they can be compared with one by one: of the same architecture and
--   training data set. What robust_drift_pairs takes where no list of pairs is given.
-- grain: one row per pair of a robust and a normal model
-- columns: a: model_id of the robust model; b: of the normal one; training_dataset; architecture: backbone, or network
--   or else architecture_family where the source does not name one
-- nulls: no rows without models that are known to be robust; models without data set or architecture have no pair
-- example: select training_dataset, count(*) from model_pairs group by training_dataset
create view model_pairs as
with named as (
    select model_id, robust, training_dataset, coalesce(backbone, network, architecture_family) as architecture
    from models
)
select a.model_id as a, b.model_id as b, a.training_dataset, a.architecture
from named as a
join named as b on a.training_dataset = b.training_dataset and a.architecture = b.architecture
where a.robust and not b.robust
order by a, b;
