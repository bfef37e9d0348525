"""Metadata is in pyproject.toml; this puts configs, tools and the model index into the wheel, where mim looks."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return  # a checkout has them beside the package
        root = Path(__file__).parent
        target = Path(self.build_lib, 'vik_mm', '.mim')
        for folder in ('configs', 'tools'):
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(root / folder, target / folder, ignore=ignore, dirs_exist_ok=True)
        shutil.copy(root / 'model-index.yml', target)


setup(cmdclass=dict(build_py=BuildWithConfigs))
