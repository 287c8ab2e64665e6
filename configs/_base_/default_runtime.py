# mmdet's default runtime with mmforget's registries.
_base_ = ['mmdet::_base_/default_runtime.py']

custom_imports = dict(imports=['mmforget'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
