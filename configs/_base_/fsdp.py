# Parameters, gradients and optimizer state divided among the processes, block by block.
# Checkpoints are whole: they load wherever those of other runs do.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='ShardedStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', auto_wrap_policy='wrap_stage_blocks'),
    state_dict_cfg='full',
)
