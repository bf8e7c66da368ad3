-- purpose: How often each ONNX operator occurs in each model; the source has one column per operator.
-- grain: one row per model and operator that occurs
-- columns: model_id; operator: its ONNX name; n: how often it occurs
-- example: select operator, sum(n) from model_operators group by operator order by 2 desc
create table model_operators as
from lake_model_operators
order by model_id, operator;
