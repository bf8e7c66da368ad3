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
    -- what a network is for says more than the backbone that it is built on
    ('DeepLab', 'deeplab'),
    ('FCN', '(^|[^a-z])fcn'),
    ('U-Net', 'unet|(^|[^a-z])u[-_ ]net'),
    ('YOLO', 'yolo'),
    ('MTCNN', 'mtcnn|(^|[^a-z])[pro]-?net([^a-z]|$)'),
    ('GAN', 'generator|discriminator|stylegan|(^|[^r]|[^o]r)gan([^a-z]|$)'), -- but not "organ"
    -- backbones
    ('EfficientNet', 'efficient[-_ ]?net|effnet'),
    ('MobileNet', 'mobile[-_ ]?net'),
    ('MnasNet', 'mnasnet|spnasnet'),
    ('NASNet', 'nasnet'),
    ('FBNet', 'fbnet'),
    ('GhostNet', 'ghost-?net'),
    ('ShuffleNet', 'shuffle[-_ ]?net'),
    ('SqueezeNet', 'squeeze[-_ ]?net'),
    ('DenseNet', 'dense[-_ ]?net'),
    ('Inception', 'inception|googlenet'),
    ('Xception', 'xception'),
    ('RegNet', 'regnet'),
    ('ReXNet', 'rexnet'),
    ('HRNet', 'hr-?net'),
    ('DLA', '(^|[^a-z])dla([^a-z]|$)'),
    ('DPN', '(^|[^a-z])dpn([^a-z]|$)'),
    ('SENet', '(^|[^a-z])se-?net'),
    ('VGG', 'vgg'),
    ('AlexNet', 'alex[-_ ]?net|caffenet'),
    ('DarkNet', 'darknet'),
    ('LeNet', '(^|[^a-z])le-?net'),
    ('WideResNet', 'wide[-_ ]?res[-_ ]?net|(^|[^a-z])wrn'),
    ('ResNeXt', 'res-?next'),
    ('ResNeSt', 'resnest'),
    ('Res2Net', 'res2nex?t'),
    ('ResNet', 'res[-_ ]?net|(^|[^a-z])bit-?m([^a-z]|$)')
) as patterns(family, pattern);
