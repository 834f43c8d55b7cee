"""Two plugins for pyroplug: the serializer ``jsonb64`` and the feature ``callcount``."""
