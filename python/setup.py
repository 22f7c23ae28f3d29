"""Beside pyproject.toml: a wheel with a library inside is of one platform, but of any Python."""
import os

from setuptools import Distribution, setup

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

HERE = os.path.dirname(os.path.abspath(__file__))


class WithLibrary(Distribution):
    """Of one platform where the library is inside."""

    def has_ext_modules(self):
        return os.path.exists(os.path.join(HERE, "gapless", "libgapless.so"))


class PlatformWheel(bdist_wheel):
    """Tags such a wheel py3-none-PLATFORM: nothing in it is of one Python."""

    def get_tag(self):
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


setup(distclass=WithLibrary, cmdclass={"bdist_wheel": PlatformWheel})
