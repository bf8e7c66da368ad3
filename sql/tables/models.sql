-- purpose: The trained models, with their labels after the fixes of label_fixes.
-- grain: one row per model
-- columns: model_id; model: its file name; name; task; visual_category; raw_task, raw_visual_category: both before the
--   fixes; pretrained: whether it was trained before on other data; pretraining_dataset, training_dataset:
--   comma-separated names (model_datasets has them one by one); producer, op_set: what wrote the ONNX file, and its
--   operator set; depth: nodes on the longest path; paper; accessible; dataset_url; total_filters: without 1x1;
--   share_3x3: share of 3x3 kernels among them; architecture_family: see architecture_patterns; of the robustness data
--   set robust: trained adversarially, clean_accuracy, robust_accuracy, network: its name, backbone: its architecture,
--   precision; then every other column of the source in snake_case; source: the file that it came from; source_model_id:
--   its id there; source_sha256: checksum of a model's own file
-- nulls: what the source does not say; empty text, "?" and "nan" count as not said
-- example: select task, count(*) from models group by task
create table models as
from lake_models
order by model_id;
