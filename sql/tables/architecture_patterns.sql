-- purpose: How models.architecture_family is derived: the first pattern that the model's file name or name matches,
--   in the order of priority, so that a family stands above those that its members' names contain.
-- grain: one row per pattern
-- columns: priority: the lowest match wins; family: its name; pattern: a regular expression, matched without regard to case
-- nulls: a model that matches none has NULL as its family
-- example: from architecture_patterns order by priority
create table architecture_patterns as
select row_number() over () as priority, *
from (
    values
    ('EfficientNet', 'efficient-?net|effnet'),
    ('MobileNet', 'mobile-?net|mnasnet|fbnet|spnasnet|ghostnet'),
    ('ShuffleNet', 'shuffle-?net'),
    ('SqueezeNet', 'squeeze-?net'),
    ('DenseNet', 'dense-?net'),
    ('Inception', 'inception|googlenet|xception'),
    ('RegNet', 'regnet'),
    ('ReXNet', 'rexnet'),
    ('NASNet', 'nasnet'),
    ('HRNet', 'hr-?net'),
    ('DLA', '(^|[^a-z])dla[0-9]*'),
    ('DPN', '(^|[^a-z])dpn[0-9]*'),
    ('SENet', '(^|[^a-z])se-?net'),
    ('VGG', 'vgg|repvgg'),
    ('AlexNet', 'alex-?net'),
    ('DarkNet', 'darknet|yolo|cspdarknet'),
    ('WideResNet', 'wide-?res-?net|(^|[^a-z])wrn'),
    ('ResNeXt', 'resne[x]t|resnext'),
    ('ResNeSt', 'resnest'),
    ('Res2Net', 'res2net'),
    ('U-Net', '(^|[^a-z])u-?net|unet'),
    ('DeepLab', 'deeplab'),
    ('FCN', '(^|[^a-z])fcn'),
    ('GAN', 'gan([^a-z]|$)|generator|discriminator|stylegan'),
    ('MTCNN', 'mtcnn|(^|[^a-z])[pro]-?net([^a-z]|$)'),
    ('ResNet', 'res-?net|bit-?m'),
    ('LeNet', 'le-?net')
) as patterns(family, pattern);
