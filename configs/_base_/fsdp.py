# Parameters, gradients and optimizer state divided among the processes, block by block. ViK and the transformers with
# KArAt say what their blocks are; for another backbone set block_classes here.
# Checkpoints are whole: they load wherever those of other runs do.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='ShardedStrategy',
    state_dict_cfg='full',
)
