-- purpose: Distribution shift between the two sides of a list of pairs of models, robust ones and normal ones of the same
--   architecture, for each training data set. A model counts once per pair that it is in.
-- source: CVPRW 2022, arXiv 2204.02481, on distribution shifts
-- parameters: pairs (varchar, model_pairs): the list, the name of a table or view or the path of a CSV file with the columns a
--   and b, each a model by its model_id, file name or name
-- grain: one row per training data set that both sides have
-- columns: training_dataset: of the models themselves; drift: in nats; n_layers_a, n_layers_b: layers on each side, counted once per pair
-- reading: 0 for equal distributions. Published are 0.622 for cifar10, 0.174 for cifar100 and 0.018 for imagenet, without
--   sparse filters (see robust_drift). model_pairs combines every robust model with every normal one of its
--   architecture; the study's own list, robust_vs_normal_pairings.csv, has one normal model for each robust one: to use it,
--   name its columns Robust and Normal a and b, and give the first one a name too
-- nulls: no rows where there are no pairs; a name that no model or several have is an error
-- example: warehouse analyses cnn.warehouse robust_drift_pairs --set pairs=model_pairs
-- portable: yes
select grp as training_dataset, drift, n_layers_a, n_layers_b
from drift_paired(coalesce(getvariable('pairs')::varchar, 'model_pairs'), training_dataset)
order by training_dataset;
