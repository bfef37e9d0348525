# AdamW without weight decay on what must not shrink: 1-D parameters, and the learned centres, widths and coefficients
# of basis functions; of the other papers' mixers what their authors exempt. A schedule adds its learning rate, and what
# else it needs.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,  # 1-D parameters
        custom_keys={
            '.centers': dict(decay_mult=0.0),
            '.log_widths': dict(decay_mult=0.0),
            '.numerator': dict(decay_mult=0.0),
            '.denominator': dict(decay_mult=0.0),
            '.bias_table': dict(decay_mult=0.0),  # DAT++
            '.position_bias': dict(decay_mult=0.0),  # EfficientViT; MaxViT's has this name too
            'token_mixer.bias': dict(decay_mult=0.0),  # NAT
            '.query_embedding': dict(decay_mult=0.0),  # MoH, and the next three
            '.local_bias': dict(decay_mult=0.0),
            '.cpb.': dict(decay_mult=0.0),
            '.temperature': dict(decay_mult=0.0),  # L2ViT's has this name too
        },
    ),
)
