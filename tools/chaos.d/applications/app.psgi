# Runs a request and writes into a ledger what it did: "B id" when it begins, "E id sum length" when it has ended.
use strict;
use warnings;
use Digest::SHA;
use Fcntl;
use Time::HiRes;

my $PIECE = 65536;
my ($ledger, $owner) = (undef, 0);

sub note {
    my ($line) = @_;
    if ($owner != $$) {
        sysopen $ledger, "$ENV{LEDGER}/perl.$$", O_WRONLY | O_APPEND | O_CREAT, 0644 or die "ledger: $!";
        $owner = $$;
    }
    syswrite $ledger, $line;
}

sub {
    my ($env) = @_;
    my %asked = map { split /=/, $_, 2 } split /&/, $env->{QUERY_STRING};
    my ($name, $out) = ($asked{id}, $asked{out});
    note("B $name\n");
    my $sum = Digest::SHA->new(256);
    while ($env->{'psgi.input'}->read(my $data, $PIECE)) {
        $sum->add($data);
    }
    my $body = $sum->hexdigest;
    Time::HiRes::sleep($asked{work} / 1000);
    my $text   = Digest::SHA::sha256_hex($name);
    my @fields = ('Content-Type' => 'text/plain', 'X-Id' => $name, 'X-Sum' => $body);
    if (!$asked{stream}) {
        note("E $name $body $out\n");
        return [200, [@fields, 'Content-Length' => $out], [$text x ($out / 64)]];
    }
    return sub {
        my $writer = $_[0]->([200, \@fields]);
        my $piece  = $text x ($PIECE / 64);
        for (my $at = 0; $at < $out; $at += $PIECE) {
            $writer->write(substr $piece, 0, $out - $at);
        }
        note("E $name $body $out\n");
        $writer->close;
    };
};
