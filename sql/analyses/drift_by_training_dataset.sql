-- purpose: Distribution shift between training data sets: how differently the filters of models are shaped that learned
--   from them.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: one_by_one (boolean, false): whether a model trained on several data sets counts for each of them. Else a
--   list of data sets, as models.training_dataset has it, is a group of its own
-- grain: one row per ordered pair of training data sets, one with itself included
-- columns: a, b: the data sets; drift: in nats
-- reading: 0 for equal distributions. Data sets with a model or two say more of these models than of the data:
--   training_set_conditions tells how large each is, drift_controlled(training_dataset, task) compares within tasks
-- nulls: models without a training data set count nowhere
-- example: warehouse analyses cnn.warehouse drift_by_training_dataset --set one_by_one=true
-- portable: yes
with labelled as (
    select model_id, training_dataset as grp
    from models
    where training_dataset is not null and not coalesce(getvariable('one_by_one')::boolean, false)
    union all
    select model_id, dataset as grp
    from model_datasets
    where role = 'training' and coalesce(getvariable('one_by_one')::boolean, false)
),
trained as (
    select labelled.grp, layer_id
    from labelled
    join layers using (model_id)
),
distributed as (
    from distributions_of('trained')
)
from drift_of_distributions('distributed');
