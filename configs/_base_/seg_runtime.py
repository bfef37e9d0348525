# What MMSegmentation's runs share; they count iterations.
_base_ = 'default_runtime.py'

default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=4000),
    visualization=dict(_delete_=True, type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', alpha=0.6)
log_processor = dict(by_epoch=False)
