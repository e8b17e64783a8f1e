"""Images as rules have them, for tests that have no store."""

from jail.spec import ImageOffer


class Offered:
    """`host`, and what else is given by its name. `obstacles`: targets at which no volume can be."""

    def __init__(self, obstacles=(), **images):
        self.obstacles = obstacles
        self.images = {"host": ImageOffer(), **images}

    def names(self):
        return list(self.images)

    def find(self, name):
        return self.images.get(name)

    def obstacle(self, _offer, target):
        return "is in the way" if target in self.obstacles else None
