from django.db import models


class Note(models.Model):
    """A few words with a title."""

    title = models.CharField(max_length=100)
    text = models.TextField(blank=True)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-written",)

    def __str__(self) -> str:
        return self.title
