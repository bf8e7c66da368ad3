-- purpose: The data sets each model was trained on, one by one; the source has comma-separated lists.
-- grain: one row per model, role and data set
-- columns: model_id; role: training or pretraining; dataset
-- example: select dataset, count(*) from model_datasets where role = 'training' group by dataset
create table model_datasets as
from lake_model_datasets
order by model_id, role, dataset;
